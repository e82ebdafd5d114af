# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The runner of ``tools/train.py`` and ``tools/test.py``."""

import sys

from mmengine.model import BaseTTAModel, is_model_wrapper

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.datasets.checks import check_datasets
from mmpanet.utils.errors import DataError
from .checkpoint_runner import WholeCheckpointRunner
from .cpu_group_runner import CpuGroupRunner


def build_runner(cfg):
    """The runner that the config asks for: mmengine's, with checks, or the one its ``runner_type`` names."""
    setup_cache_size_limit_of_dynamo()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else CheckingRunner.from_cfg(cfg)


class CheckingRunner(WholeCheckpointRunner, CpuGroupRunner):
    """mmengine's runner, which refuses data and checkpoints that it would otherwise pass over in silence.

    Training on annotations that are not what the config says, see :mod:`mmpanet.datasets.checks`, and
    testing with random weights, because those of a checkpoint have other names, run to the end in mmengine. With
    ``check_annotations=False`` in the config the annotations are not looked at.
    """

    needs_all_weights = False

    def train(self):
        self._check_annotations('train', *(['val'] if self._val_loop is not None else []))
        return super().train()

    def test(self):
        self._check_annotations('test')
        self.needs_all_weights = True
        return super().test()

    def load_checkpoint(self, filename, *args, **kwargs):
        checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        fault = weights_mismatch(
            model, checkpoint.get('state_dict', checkpoint), self.needs_all_weights or self._resume
        )
        if fault:
            sys.exit(f'checkpoint {filename}: {fault}')
        return checkpoint

    def _check_annotations(self, *splits):
        loop = {'train': self._train_loop, 'test': self._test_loop}[splits[0]]
        if loop is None and self.cfg.get('data') is None:  # a config of MMDetection 2.x has a message of its own
            others = ', optim_wrapper' if splits[0] == 'train' else f', {splits[0]}_evaluator'
            sys.exit(
                f'{splits[0]}_dataloader, {splits[0]}_cfg{others}: one of them is missing or None in the config, and '
                'each takes a dict'
            )
        if not self.cfg.get('check_annotations', True) and loop is not None:
            return
        try:
            left_out = check_datasets(self.cfg, *splits)
        except DataError as error:
            sys.exit(
                f'{error}\n(tools/misc/check_dataset.py lists all; check_annotations=False in the config leaves this '
                'check out)'
            )
        for line in left_out:
            self.logger.warning(line)
