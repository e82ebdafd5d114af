# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the command lines under ``tools/`` share: the arguments of a run, and the config and runner they make."""
import os
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mmdet.registry import RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo


def add_run_arguments(parser):
    """The arguments that training and testing have in common, as MMDetection names them."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and metrics; '
                        "by default the config's work_dir, else work_dirs/<name of the config>")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='settings that override the config, such as train_cfg.max_epochs=1 or '
                        'model.neck.fusion=weighted; a list is written key="[a,b]" or key=a,b, a nested one '
                        'key="[(a,b),(c,d)]", in quotation marks and without blanks')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='what started the processes of a distributed run')
    # torch.distributed.launch passes it with a dash since torch 2.0 and with an underscore before.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help='set by torch.distributed.launch; torchrun sets $LOCAL_RANK instead')


def load_config(args):
    """The config that ``args`` name, with their overrides, launcher and work folder in it."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def build_runner(cfg):
    """The runner that the config asks for: mmengine's, or the one its ``runner_type`` names."""
    setup_cache_size_limit_of_dynamo()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
