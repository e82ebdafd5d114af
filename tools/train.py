"""Train a detector: ``python tools/train.py CONFIG`` or ``mim train mmpanet CONFIG``."""

import argparse
import os
import sys

# The threads of GNU OpenMP wait for each other by spinning, which makes a step several times as long on a busy machine.
# It reads these when torch is loaded: docs/troubleshooting.md.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT=os.environ.get('GOMP_SPINCOUNT', '3000'))

from mmengine.device import get_device  # noqa: E402

import mmpanet  # noqa: E402, F401  registers PANet's modules, whether or not the config imports them
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.run_config import check_amp, check_run_config, use_amp, use_auto_scale_lr
from mmpanet.engine.runner import build_runner, resume_last
from mmpanet.utils.allocator import keep_freed_memory
from mmpanet.utils.errors import MMPanetError

LAST = 'auto'  # mmdet's word for the latest checkpoint in the work folder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a detector with mmengine's runner")
    parser.add_argument('config', help='path of the config')
    add_run_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from the config's auto_scale_lr.base_batch_size to the batch size of this run",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const=LAST,
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a path from the latest one in the work folder',
    )
    args = parser.parse_args()
    if args.resume == '':
        parser.error('--resume: an empty name; without a name it takes the latest checkpoint in the work folder')
    return args


def train(args: argparse.Namespace) -> None:
    cfg = load_run_config(args)
    if args.auto_scale_lr:
        use_auto_scale_lr(cfg)
    if args.amp:
        use_amp(cfg)
    check_run_config(cfg, 'train')
    check_amp(cfg)
    if args.resume and args.resume != LAST:
        cfg.resume, cfg.load_from = True, args.resume
    runner = build_runner(cfg)
    if args.resume == LAST:
        resume_last(runner)
    runner.train()


def main() -> None:
    args = parse_args()
    if get_device() == 'cpu':
        keep_freed_memory()
    try:
        train(args)
    except MMPanetError as error:
        sys.exit(f'train.py: {error}')


if __name__ == '__main__':
    main()
