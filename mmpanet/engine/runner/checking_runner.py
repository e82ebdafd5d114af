# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The runner of ``tools/train.py`` and ``tools/test.py``."""

from typing import Any, Dict, Tuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmpanet.checkpoints.matching import weights_mismatch
from mmpanet.datasets.checks import check_class_order, check_datasets, unset_faults
from mmpanet.engine.fused_step import add_missing_momentum, with_fused_step, with_step_of
from mmpanet.utils.environment import warning_of_bfloat16
from mmpanet.utils.errors import CheckpointError, DataError, MMPanetError
from mmpanet.utils.files import make_folder
from mmpanet.utils.limits_of_mmcv import use_mmcv_in_float32
from mmpanet.utils.palette import give_enough_colors
from .checkpoint_runner import WholeCheckpointRunner
from .cpu_group_runner import CpuGroupRunner

OF_A_TRAINING = ('meta', 'message_hub', 'optimizer')  # what a checkpoint needs to go on from, besides weights


def build_runner(cfg: Config) -> Runner:
    """The runner that the config asks for: :class:`CheckingRunner`, or the one that its ``runner_type`` names.

    Raises:
        ConfigError: If its work folder cannot be made.
    """
    setup_cache_size_limit_of_dynamo()
    if cfg.get('work_dir'):
        make_folder(cfg.work_dir, 'work_dir')
    return RUNNERS.build(cfg) if 'runner_type' in cfg else CheckingRunner.from_cfg(cfg)


def trained_classes(checkpoint: Dict[str, Any]) -> Tuple[str, ...]:
    """The classes that a checkpoint says it was trained with, in their order; none if it does not say."""
    meta = checkpoint.get('meta')
    dataset_meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if isinstance(dataset_meta, list):  # of mmengine's ConcatDataset: one for each dataset
        dataset_meta = dataset_meta[0] if dataset_meta else None
    classes = dataset_meta.get('classes') if isinstance(dataset_meta, dict) else None
    return tuple(classes) if isinstance(classes, (list, tuple)) else ()


class CheckingRunner(WholeCheckpointRunner, CpuGroupRunner):
    """mmengine's runner, which refuses data and checkpoints that do not fit the config.

    mmengine itself runs to the end in both cases: it trains on annotations that are not what the config says, and it
    tests with random weights if those of the checkpoint have other names. What the data are checked for is in
    :mod:`mmpanet.datasets.checks`. ``check_annotations=False`` in the config leaves that check out.

    It also takes the fused step of torch's optimizers on CPUs, and makes ``fp16=True`` of a loop work there.
    """

    needs_all_weights = False

    def train(self) -> nn.Module:
        self._check_annotations('train', *(['val'] if self._val_loop is not None else []))
        return super().train()

    def build_val_loop(self, loop: Any) -> BaseLoop:
        built = super().build_val_loop(loop)
        self._prepare_for_autocast(built)
        give_enough_colors(self.visualizer.dataset_meta)
        return built

    def build_test_loop(self, loop: Any) -> BaseLoop:
        """As mmengine's; checks the test data first, and refuses checkpoints that lack a weight from then on."""
        if not isinstance(loop, BaseLoop):  # otherwise it is built already
            self._check_annotations('test')
            self.needs_all_weights = True
        built = super().build_test_loop(loop)
        self._prepare_for_autocast(built)
        give_enough_colors(self.visualizer.dataset_meta)
        return built

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """As mmengine does, but with the fused step of torch's optimizers where they have one."""
        optimizer = optim_wrapper.get('optimizer') if isinstance(optim_wrapper, dict) else None
        if isinstance(optimizer, dict):
            # A copy, because the config is written down as the user gave it.
            optim_wrapper = dict(optim_wrapper, optimizer=with_fused_step(optimizer, self.model))
        built = super().build_optim_wrapper(optim_wrapper)
        optimizer = getattr(built, 'optimizer', None)
        if isinstance(optimizer, torch.optim.SGD):
            optimizer.register_step_pre_hook(add_missing_momentum)
        return built

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Dict[str, Any]:
        checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        needed = (*OF_A_TRAINING, *(['param_schedulers'] if self.param_schedulers else [])) if self._resume else ()
        lacking = [key for key in needed if key not in checkpoint]
        if lacking:
            raise CheckpointError(
                f'checkpoint {filename}: has no {lacking[0]!r}, and so no training to go on with; to start from its '
                f'weights, set load_from={str(filename)!r} instead of --resume'
            )
        model = self.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        state_dict = checkpoint.get('state_dict', checkpoint)
        mismatch = weights_mismatch(model, state_dict, self.needs_all_weights or self._resume)
        if mismatch:
            raise CheckpointError(f'checkpoint {filename}: {mismatch}')
        if self.needs_all_weights:
            check_class_order(self.cfg, trained_classes(checkpoint), f'checkpoint {filename}')
        if self._resume and isinstance(self.optim_wrapper, OptimWrapperDict):
            states = checkpoint.get('optimizer', {})
            for name, wrapper in self.optim_wrapper.items():
                if name in states:
                    states[name] = with_step_of(wrapper.optimizer, states[name])
        elif self._resume and isinstance(self.optim_wrapper, OptimWrapper) and 'optimizer' in checkpoint:
            checkpoint['optimizer'] = with_step_of(self.optim_wrapper.optimizer, checkpoint['optimizer'])
        return checkpoint

    def _prepare_for_autocast(self, loop: BaseLoop) -> None:
        """Make ``fp16=True`` of a loop work on a CPU, where mmengine takes bfloat16 for it."""
        device = get_device()
        if not getattr(loop, 'fp16', False) or device != 'cpu':
            return
        use_mmcv_in_float32(self.model)
        warning = warning_of_bfloat16(device)
        if warning:
            self.logger.warning(warning)

    def _check_annotations(self, *splits: str) -> None:
        if not self.cfg.get('check_annotations', True):
            return
        unset = [fault for split in splits for fault in unset_faults(self.cfg, split)]
        if unset:
            raise DataError(*unset)
        try:
            left_out = check_datasets(self.cfg, *splits)
        except MMPanetError as error:
            raise type(error)(
                f'{error}\n(tools/misc/check_dataset.py lists all; check_annotations=False in the config leaves this '
                'check out)'
            ) from error
        for line in left_out:
            self.logger.warning(line)
