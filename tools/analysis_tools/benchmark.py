"""Compare models side by side: ``python tools/analysis_tools/benchmark.py``, see docs/benchmarks.md."""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch

import mmpanet  # noqa: F401  registers its modules
from mmpanet.benchmark import report
from mmpanet.benchmark.contenders import BASE, VARIANTS, contender
from mmpanet.benchmark.run import run_benchmark
from mmpanet.benchmark.subject import DTYPES, INFERENCE, MODES, Setting, image_files
from mmpanet.benchmark.sweep import SWEPT, sweep
from mmpanet.benchmark.workload import Workload
from mmpanet.swap import SwapError
from mmpanet.utils.argument_types import positive_int

DEFAULT = ('fpn', 'fpn-s2', 'pafpn', 'bpa', 'bpa-afp', 'panet')


def parse_args():
    names = '; '.join(f'{name}: {variant.what}' for name, variant in VARIANTS.items())
    parser = argparse.ArgumentParser(
        description='Time models in turn on the same images, proposals and detections, in one process. No dataset and '
        f'no checkpoint is needed. Models: {names}. Behind a name or config, "+channels_last" puts the model into '
        'that memory format (mmdet\'s RoI extractors get copies, which they need), and "+compile" compiles backbone, '
        'neck and heads with torch.compile.'
    )
    parser.add_argument(
        'models',
        nargs='*',
        default=DEFAULT,
        metavar='MODEL',
        help='variants of --base by name, or configs (paths, mmdet:: names); the others are compared '
        f'to the first; by default: {" ".join(DEFAULT)}',
    )
    parser.add_argument(
        '--base', default=BASE, metavar='CONFIG', help=f'what the variants are made of; by default {BASE}'
    )
    parser.add_argument('--mode', nargs='+', choices=MODES, default=MODES, help='by default both')
    parser.add_argument(
        '--size',
        nargs=2,
        type=positive_int,
        default=(480, 640),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, in pixels',
    )
    parser.add_argument('--batch', type=positive_int, default=1, help='images at a time')
    parser.add_argument('--rois', type=positive_int, default=1000, help='proposals an image')
    parser.add_argument('--detections', type=positive_int, default=100, help='boxes an image that get a mask')
    parser.add_argument(
        '--positives', type=positive_int, default=64, help='RoIs that match an object, an image of training'
    )
    parser.add_argument('--rounds', type=positive_int, default=10, help='how often each is timed, there and back')
    parser.add_argument('--threads', type=positive_int, help="by default torch's own choice")
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='other than float32: torch.autocast')
    parser.add_argument('--rois-per-chunk', type=positive_int, help='of PANetRoIHead, in inference')
    parser.add_argument(
        '--no-memory', action='store_true', help='leave out the peak memory, which takes a process a model and mode'
    )
    parser.add_argument(
        '--sweep',
        nargs='+',
        metavar=('WHAT', 'VALUE'),
        help=f'repeat for several values of one of {", ".join(SWEPT)}, and plot the curve; a size '
        'is the short edge, with the aspect of --size',
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='FOLDER',
        help='read images, as in testing, in place of random ones; inference only, with --checkpoints',
    )
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        metavar='FILE',
        help='trained weights, one a model: each works on the proposals and detections that it finds',
    )
    parser.add_argument('--out', type=Path, default=Path('work_dirs/benchmark'), help='folder for tables and plots')
    args = parser.parse_args()
    if args.sweep and (
        args.sweep[0] not in SWEPT
        or len(args.sweep) < 3
        or not all(value.isdigit() and int(value) for value in args.sweep[1:])
    ):
        parser.error(
            f'--sweep {" ".join(args.sweep)}: give one of {", ".join(SWEPT)}, and two or more positive integers'
        )
    if bool(args.images) != bool(args.checkpoints) or len(args.checkpoints or args.models) != len(args.models):
        parser.error(
            f'--images goes with --checkpoints, one a model: {len(args.models)} models, '
            f'{len(args.checkpoints or ())} checkpoints'
        )
    if args.images and (args.sweep or list(args.mode) != [INFERENCE]):
        parser.error('--images is for --mode inference, without --sweep')
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        parser.error(f'--device {args.device}: torch finds no GPU here')
    return args


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    if args.threads:
        torch.set_num_threads(args.threads)
    workload = Workload(*args.size, args.batch, args.rois, args.detections, args.positives)
    images = image_files(args.images) if args.images else ()
    setting = Setting(args.device, args.dtype, args.rois_per_chunk, images)
    started = time.time()

    def progress(line):
        print(f'[{time.time() - started:5.0f} s] {line}', file=sys.stderr, flush=True)

    checkpoints = args.checkpoints or [None] * len(args.models)
    contenders = [contender(*pair, args.base) for pair in zip(args.models, checkpoints)]
    options = dict(rounds=args.rounds, memory=not args.no_memory, progress=progress)
    if args.sweep:
        what, *values = args.sweep
        files = sweep(what, list(map(int, values)), contenders, args.mode, workload, setting, args.out, **options)
    else:
        benchmark = run_benchmark(contenders, args.mode, workload, setting, **options)
        print(report.text(benchmark))
        files = report.write(benchmark, args.out)
    print(*files, sep='\n')


if __name__ == '__main__':
    try:
        main()
    except SwapError as error:
        sys.exit(f'benchmark.py: {error}')
