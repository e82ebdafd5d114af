"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT`` or ``mim test mmpanet CONFIG -C CHECKPOINT``."""

import argparse
import os
import sys

# The threads of GNU OpenMP wait for each other by spinning, which makes a step several times as long on a busy machine.
# It reads these when torch is loaded: docs/troubleshooting.md.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT=os.environ.get('GOMP_SPINCOUNT', '3000'))

from mmengine.device import get_device  # noqa: E402

import mmpanet  # noqa: E402, F401  registers PANet's modules, whether or not the config imports them
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.run_config import check_run_config, check_test_time_augmentation, use_test_time_augmentation
from mmpanet.engine.runner import build_runner
from mmpanet.evaluation.whole_dump import WholeDump
from mmpanet.utils.allocator import keep_freed_memory
from mmpanet.utils.errors import ConfigError, MMPanetError
from mmpanet.utils.files import make_place_for


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a detector on the test data of its config')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of a checkpoint, or `trained` for the weights of the config')
    add_run_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions into this pickle file')
    parser.add_argument('--show', action='store_true', help='show each picture in a window')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write pictures of ground truth and predictions side by side into <work folder>/<time>/DIR',
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds for which --show shows a picture')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="augment at test time (boxes only), by the config's "
        'tta_model and tta_pipeline if it has them, else with a horizontal flip',
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out takes a file that ends in .pkl or .pickle, not {args.out!r}')
    return args


def test(args: argparse.Namespace) -> None:
    cfg = load_run_config(args)
    if args.out:
        make_place_for(args.out, '--out')
    if args.tta:
        check_test_time_augmentation(cfg)
    check_run_config(cfg, 'test')
    cfg.load_from = resolve_checkpoint(args.checkpoint, args.config)
    cfg.resume = False
    if args.show or args.show_dir:
        hooks = cfg.get('default_hooks')
        if not isinstance(hooks, dict) or not hooks.get('visualization'):
            raise ConfigError(
                "--show and --show-dir need default_hooks.visualization=dict(type='DetVisualizationHook')"
            )
        trigger_visualization_hook(cfg, args)
    if args.tta:
        use_test_time_augmentation(cfg)
    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(WholeDump(out_file_path=args.out))
    runner.test()


def main() -> None:
    args = parse_args()
    if get_device() == 'cpu':
        keep_freed_memory()
    try:
        test(args)
    except MMPanetError as error:
        sys.exit(f'test.py: {error}')


if __name__ == '__main__':
    main()
