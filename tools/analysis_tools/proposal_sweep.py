"""Show what the number of proposals costs in AP and saves in time.

``python tools/analysis_tools/proposal_sweep.py --model CONFIG CHECKPOINT --model CONFIG CHECKPOINT``
"""

import argparse
import sys
from pathlib import Path

from mmengine.device import get_device

import mmpanet  # noqa: F401  registers PANet's modules, whether or not the config imports them
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.evaluation.proposal_sweep import sweep_proposals, sweep_table, write_sweep
from mmpanet.utils.allocator import keep_freed_memory
from mmpanet.utils.argument_types import add_cfg_options, positive_int
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import make_folder


def parse_args():
    parser = argparse.ArgumentParser(
        description='Test trained two-stage detectors with several numbers of proposals per image, side by side on the '
        'test data of their configs, and write a table and a picture of AP and time.'
    )
    parser.add_argument(
        '--model',
        dest='models',
        nargs=2,
        action='append',
        required=True,
        metavar=('CONFIG', 'CHECKPOINT'),
        help='a detector; give it once per detector. Times are compared with the first one. `trained` in place of a '
        'checkpoint means the weights of the config',
    )
    parser.add_argument('--names', nargs='+', help='names of the detectors (default: those of the configs)')
    parser.add_argument(
        '--proposals',
        nargs='+',
        type=positive_int,
        default=[50, 100, 200, 300, 500, 1000],
        metavar='NUMBER',
        help='values of model.test_cfg.rpn.max_per_img (default: %(default)s)',
    )
    add_cfg_options(parser, 'settings that override all configs')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs', 'proposals'), help='(default: %(default)s)')
    args = parser.parse_args()
    args.names = args.names or [Path(config).stem for config, _ in args.models]
    if len(set(args.names)) != len(args.models):
        parser.error(f'--names: {len(args.models)} detectors need as many different names, not {args.names}')
    return args


def main():
    args = parse_args()
    models = {}
    if get_device() == 'cpu':
        keep_freed_memory()
    try:
        make_folder(args.out_dir, '--out-dir')
        for name, (config, checkpoint) in zip(args.names, args.models):
            models[name] = load_config(config, args.cfg_options)
            weights = resolve_checkpoint(checkpoint, config)
            models[name].update(load_from=weights, resume=False, work_dir=str(args.out_dir / name))
        points = sweep_proposals(models, args.proposals, progress=lambda line: print(line, flush=True))
        print(sweep_table(points))
        for file in write_sweep(points, args.out_dir):
            print(file)
    except MMPanetError as error:
        sys.exit(f'proposal_sweep.py: {error}')


if __name__ == '__main__':
    main()
