"""Compare the pooling op with mmcv's: ``python tools/analysis_tools/benchmark_pooling.py``, see docs/benchmarks.md."""

import argparse
import sys
import warnings
from pathlib import Path

import torch

import mmpanet  # noqa: F401  registers its modules
from mmpanet.benchmark.pooling import run_pooling_benchmark
from mmpanet.benchmark.report import pooling_text
from mmpanet.benchmark.workload import Workload
from mmpanet.utils.argument_types import non_negative_int, positive_int
from mmpanet.utils.environment import environment_summary
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import make_place_for, write_json
from mmpanet.utils.model_building import check_device


def parse_args():
    parser = argparse.ArgumentParser(
        description="Time adaptive feature pooling, FPN's pooling and adaptive feature pooling of rotated RoIs, with "
        "mmcv's ops and with those of this package, in turn on the same maps and RoIs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=positive_int,
        default=(800, 1344),
        metavar=('HEIGHT', 'WIDTH'),
        help='size of the images in pixels',
    )
    parser.add_argument('--batch', type=positive_int, default=2, help='images per batch')
    parser.add_argument('--rois', type=positive_int, default=500, help='RoIs per image')
    parser.add_argument('--output-size', type=positive_int, default=7, help='height and width of the pooled grids')
    parser.add_argument('--channels', type=positive_int, default=256, help='channels of the maps')
    parser.add_argument(
        '--sampling-ratio',
        type=non_negative_int,
        default=2,
        help='samples per bin and axis; 0 leaves it to the size of the RoI, and leaves out rotated RoIs',
    )
    parser.add_argument('--rounds', type=positive_int, default=5, help='rounds per op, of two runs each')
    parser.add_argument('--threads', type=positive_int, help='CPU threads; by default the choice of torch')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--out', type=Path, help='JSON file for the results')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    if args.threads:
        torch.set_num_threads(args.threads)
    workload = Workload(*args.size, args.batch, args.rois)
    sizes = (args.output_size, args.channels, args.sampling_ratio)
    try:
        check_device(args.device)
        if args.out:
            make_place_for(args.out, '--out')
    except MMPanetError as error:
        sys.exit(f'benchmark_pooling.py: {error}')
    results = run_pooling_benchmark(
        workload, *sizes, args.rounds, args.device, lambda line: print(line, file=sys.stderr, flush=True)
    )
    environment = environment_summary(args.device)
    print(pooling_text(results, workload, *sizes, environment))
    if args.out:
        content = dict(environment=environment, rows=[result._asdict() for result in results])
        write_json(args.out, content)
        print(args.out)


if __name__ == '__main__':
    main()
