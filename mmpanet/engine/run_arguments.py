# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The arguments that training and testing share, and the config that results from them."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from mmpanet.utils.argument_types import add_cfg_options
from mmpanet.utils.configs import load_config


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that training and testing have in common, under MMDetection's names."""
    parser.add_argument(
        '--work-dir',
        help="folder for logs, checkpoints and metrics (default: the config's work_dir, or else "
        'work_dirs/<name of the config>)',
    )
    add_cfg_options(
        parser,
        'settings that override the config, such as train_cfg.max_epochs=1 or model.neck.fusion=weighted; write a list '
        'as key="[a,b]" or key=a,b and a nested list as key="[(a,b),(c,d)]", in quotation marks and without blanks',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='what started the processes of a distributed run (default: none)',
    )
    # torch.distributed.launch passes it with a dash since torch 2.0 and with an underscore before.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='set by torch.distributed.launch; torchrun sets $LOCAL_RANK instead',
    )


def load_run_config(args: argparse.Namespace) -> Config:
    """Load the config that ``args`` name, with their overrides, launcher and work folder."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg
