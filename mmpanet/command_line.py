# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the command lines under ``tools/`` share: the arguments of a run, and the config and runner they make."""

import argparse
import os
import sys
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.model import BaseTTAModel, is_model_wrapper

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from .checkpointing import CheckpointKeepingRunner, misfit
from .cpu_group import CpuGroupRunner
from .datasets.validation import DatasetError, check_datasets


def positive(text):
    """The type of an argument that is a positive integer."""
    value = int(text) if text.isdigit() else 0
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive integer')
    return value


def score(text):
    """The type of an argument that is a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to 1')
    return value


def add_run_arguments(parser):
    """The arguments that training and testing have in common, as MMDetection names them."""
    parser.add_argument(
        '--work-dir',
        help='folder for logs, checkpoints and metrics; '
        "by default the config's work_dir, else work_dirs/<name of the config>",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that override the config, such as train_cfg.max_epochs=1 or '
        'model.neck.fusion=weighted; a list is written key="[a,b]" or key=a,b, a nested one '
        'key="[(a,b),(c,d)]", in quotation marks and without blanks',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run',
    )
    # torch.distributed.launch passes it with a dash since torch 2.0 and with an underscore before.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by torch.distributed.launch; torchrun sets $LOCAL_RANK instead',
    )


def load_config(args):
    """The config that ``args`` name, with their overrides, launcher and work folder in it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def read_config(path, options=None):
    """Load a config and override settings; ends the program with one line if that cannot be done."""
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        sys.exit(f'config {path}: {"no such file" if not os.path.exists(path) else error}')
    except ImportError as error:
        # mmengine adds the whole of sys.path to its message, and keeps what failed as the cause.
        cause = error.__cause__ or error
        sys.exit(f'config {path}: imports what is not installed: {cause}'.partition(', the current sys.path')[0])
    except SyntaxError as error:
        sys.exit(f'config {path}: syntax error: {error}')
    except OSError as error:
        sys.exit(f'config {path}: {error}')
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError) as error:
        sys.exit(f'--cfg-options {options}: {error.args[0]}')
    return cfg


def build_runner(cfg):
    """The runner that the config asks for: mmengine's, with checks, or the one its ``runner_type`` names."""
    setup_cache_size_limit_of_dynamo()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else CheckingRunner.from_cfg(cfg)


class CheckingRunner(CheckpointKeepingRunner, CpuGroupRunner):
    """mmengine's runner, which refuses data and checkpoints that it would otherwise pass over in silence.

    Training on annotations that are not what the config says, see :mod:`mmpanet.datasets.validation`, and testing with
    random weights, because those of a checkpoint have other names, run to the end in mmengine. With
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
        fault = misfit(model, checkpoint.get('state_dict', checkpoint), self.needs_all_weights or self._resume)
        if fault:
            sys.exit(f'checkpoint {filename}: {fault}')
        return checkpoint

    def _check_annotations(self, *splits):
        if not self.cfg.get('check_annotations', True):
            return
        try:
            left_out = check_datasets(self.cfg, *splits)
        except DatasetError as error:
            sys.exit(
                f'{error}\n(tools/check_dataset.py lists all; check_annotations=False in the config leaves this '
                'check out)'
            )
        if left_out:
            self.logger.warning(f'{len(left_out)} objects are left out, the first: {left_out[0]}')
