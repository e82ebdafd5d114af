"""Train a detector: ``python tools/train.py CONFIG`` or ``mim train mmpanet CONFIG``."""

import argparse
import os
import sys

# GNU OpenMP reads this once, when torch is loaded. By default its threads spin while they wait for each other, and a
# step takes several times as long on a busy machine: docs/troubleshooting.md.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import mmpanet  # noqa: E402, F401  registers PANet's modules, whether or not the config imports them
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.runner.checking_runner import build_runner
from mmpanet.engine.runner.checkpoint_runner import resume_last

LAST = 'auto'  # mmdet's word for the latest checkpoint in the work folder


def parse_args():
    parser = argparse.ArgumentParser(description='Train a detector with the OpenMMLab trainer')
    parser.add_argument('config', help='path of the config')
    add_run_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision (needs a GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from the config's auto_scale_lr.base_batch_size to this run's",
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const=LAST,
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or without a path from the latest one in the work folder',
    )
    return parser.parse_args()


def use_amp(cfg):
    wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        sys.exit(f"train.py: --amp replaces optim_wrapper.type 'OptimWrapper', and the config has {wrapper!r}")
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg):
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        sys.exit('train.py: --auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
    cfg.auto_scale_lr.enable = True


def main():
    args = parse_args()
    cfg = load_run_config(args)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        use_auto_scale_lr(cfg)
    if args.resume and args.resume != LAST:
        cfg.resume, cfg.load_from = True, args.resume
    runner = build_runner(cfg)
    if args.resume == LAST:
        resume_last(runner)
    runner.train()


if __name__ == '__main__':
    main()
