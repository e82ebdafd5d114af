"""Compare models side by side: ``python tools/analysis_tools/benchmark.py``, see docs/benchmarks.md."""

import argparse
import sys
import time
import warnings
from pathlib import Path

import torch

import mmpanet  # noqa: F401  registers its modules
from mmpanet.apis import find_images
from mmpanet.benchmark.models import DEFAULT_BASE, DTYPES, INFERENCE, MODES, VARIANTS, RunSettings, find_model
from mmpanet.benchmark.report import as_text, write_benchmark, write_sweep
from mmpanet.benchmark.run import SWEEPABLE, run_benchmark, run_sweep
from mmpanet.benchmark.workload import Workload
from mmpanet.utils.allocator import keep_freed_memory
from mmpanet.utils.argument_types import positive_int
from mmpanet.utils.environment import warning_of_bfloat16
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import make_folder
from mmpanet.utils.model_building import check_device

DEFAULT_MODELS = ('fpn', 'fpn-s2', 'pafpn', 'bpa', 'bpa-afp', 'panet')


def parse_args():
    names = '; '.join(f'{name}: {variant.description}' for name, variant in VARIANTS.items())
    parser = argparse.ArgumentParser(
        description='Time models in turn on the same images, proposals and detections, in one process. No dataset and '
        f'no checkpoint is needed. Models: {names}. A name or config may be followed by "+channels_last", which puts '
        'the model into that memory format, and by "+compile", which compiles backbone, neck and heads with '
        'torch.compile.'
    )
    parser.add_argument(
        'models',
        nargs='*',
        default=DEFAULT_MODELS,
        metavar='MODEL',
        help='variants of --base by name, or configs (paths, mmdet:: names); each is compared with the first '
        f'(default: {" ".join(DEFAULT_MODELS)})',
    )
    parser.add_argument(
        '--base', default=DEFAULT_BASE, metavar='CONFIG', help='config that the variants change (default: %(default)s)'
    )
    parser.add_argument('--mode', nargs='+', choices=MODES, default=MODES, help='(default: both)')
    parser.add_argument(
        '--size',
        nargs=2,
        type=positive_int,
        default=(480, 640),
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels (default: 480 640)',
    )
    parser.add_argument('--batch', type=positive_int, default=1, help='images per batch (default: %(default)s)')
    parser.add_argument('--rois', type=positive_int, default=1000, help='proposals per image (default: %(default)s)')
    parser.add_argument(
        '--detections', type=positive_int, default=100, help='boxes per image that get a mask (default: %(default)s)'
    )
    parser.add_argument(
        '--positives',
        type=positive_int,
        default=64,
        help='RoIs per training image that match an object, from 8 up to what the sampler of the model takes: 128 of '
        '512 as a rule (default: %(default)s)',
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=10, help='rounds per model, of two runs each (default: %(default)s)'
    )
    parser.add_argument('--threads', type=positive_int, help='CPU threads (default: the choice of torch)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ... (default: %(default)s)')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='any other one than float32 runs with torch.autocast (default: %(default)s)',
    )
    parser.add_argument('--rois-per-chunk', type=positive_int, help='of PANetRoIHead, in inference')
    parser.add_argument(
        '--no-memory', action='store_true', help='leave out the peak memory, which takes one process per model and mode'
    )
    parser.add_argument(
        '--sweep',
        nargs='+',
        metavar=('WHAT', 'VALUE'),
        help=f'repeat for several values of one of {", ".join(SWEEPABLE)}, and plot the curve; a size '
        'is the short edge, with the aspect of --size',
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='FOLDER',
        help='read the images of a folder as in testing, in place of random ones; for inference, with --checkpoints',
    )
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        metavar='FILE',
        help='trained weights, one file per model, or `trained` for those of a config; '
        'each model works on the proposals and detections that it finds',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/benchmark'),
        help='folder for tables and plots (default: %(default)s)',
    )
    args = parser.parse_args()
    if args.sweep and (
        args.sweep[0] not in SWEEPABLE
        or len(args.sweep) < 3
        or not all(value.isdigit() and int(value) for value in args.sweep[1:])
    ):
        parser.error(
            f'--sweep {" ".join(args.sweep)}: give one of {", ".join(SWEEPABLE)}, and two or more positive integers'
        )
    if bool(args.images) != bool(args.checkpoints) or len(args.checkpoints or args.models) != len(args.models):
        parser.error(
            '--images needs --checkpoints with one file per model, and the reverse; '
            f'got {len(args.models)} models, {len(args.checkpoints or ())} checkpoints'
        )
    if args.images and (args.sweep or list(args.mode) != [INFERENCE]):
        parser.error('--images needs --mode inference, and no --sweep')
    return args


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    if args.threads:
        torch.set_num_threads(args.threads)
    workload = Workload(*args.size, args.batch, args.rois, args.detections, args.positives)
    started = time.time()

    def progress(line):
        print(f'[{time.time() - started:5.0f} s] {line}', file=sys.stderr, flush=True)

    try:
        make_folder(args.out, '--out')
        if check_device(args.device).type == 'cpu':
            keep_freed_memory()
        images = tuple(map(str, find_images([args.images]))) if args.images else ()
        settings = RunSettings(args.device, args.dtype, args.rois_per_chunk, images)
        warning = warning_of_bfloat16(args.device) if args.dtype == 'bfloat16' else None
        if warning:
            progress(f'warning: {warning}')
        checkpoints = args.checkpoints or [None] * len(args.models)
        models = [find_model(name, file, args.base) for name, file in zip(args.models, checkpoints)]
        common = (models, args.mode, workload, settings, args.rounds, not args.no_memory, progress)
        if args.sweep:
            swept, *values = args.sweep
            benchmarks = []
            for value, benchmark in run_sweep(swept, list(map(int, values)), *common):
                print(f'{swept} {value}\n{as_text(benchmark)}')
                benchmarks.append((value, benchmark))
            files = write_sweep(swept, benchmarks, args.out)
        else:
            benchmark = run_benchmark(*common)
            print(as_text(benchmark))
            files = write_benchmark(benchmark, args.out)
    except MMPanetError as error:
        sys.exit(f'benchmark.py: {error}')
    print(*files, sep='\n')


if __name__ == '__main__':
    main()
