"""Compare the pooling op with mmcv's: ``python tools/analysis_tools/benchmark_pooling.py``, see docs/benchmarks.md."""

import argparse
import json
import sys
import warnings
from pathlib import Path

import torch

import mmpanet  # noqa: F401  registers its modules
from mmpanet.benchmark.pooling import benchmark_pooling
from mmpanet.benchmark.run import environment
from mmpanet.benchmark.workload import Workload
from mmpanet.utils.argument_types import positive_int


def parse_args():
    parser = argparse.ArgumentParser(
        description="Time adaptive feature pooling, and FPN's, with mmcv's RoIAlign and "
        'with the op of this package, in turn on the same maps and RoIs.'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=positive_int,
        default=(800, 1344),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, in pixels',
    )
    parser.add_argument('--batch', type=positive_int, default=2, help='images at a time')
    parser.add_argument('--rois', type=positive_int, default=500, help='RoIs an image')
    parser.add_argument('--output-size', type=positive_int, default=7, help='edge of the pooled grids')
    parser.add_argument('--channels', type=positive_int, default=256, help='of the maps')
    parser.add_argument('--sampling-ratio', type=positive_int, default=2, help='samples a bin and axis')
    parser.add_argument('--rounds', type=positive_int, default=5, help='how often each is timed, there and back')
    parser.add_argument('--threads', type=positive_int, help="by default torch's own choice")
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ...')
    parser.add_argument('--out', type=Path, help='JSON file for the results')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    if args.threads:
        torch.set_num_threads(args.threads)
    workload = Workload(*args.size, args.batch, args.rois)
    rows = benchmark_pooling(
        workload,
        args.output_size,
        args.channels,
        args.sampling_ratio,
        args.rounds,
        args.device,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    where = environment(torch.device(args.device))
    print(', '.join(f'{value}' if name == 'hardware' else f'{name} {value}' for name, value in where.items()))
    print(
        f'{args.batch} x {args.size[0]} x {args.size[1]}, {args.batch * args.rois} RoIs, {args.output_size} x '
        f'{args.output_size}, {args.channels} channels, sampling_ratio={args.sampling_ratio}'
    )
    for row in rows:
        theirs, ours = (sorted(seconds)[len(seconds) // 2] for seconds in row.seconds)
        print(
            f'{row.form:14} {row.direction:9} mmcv {theirs:.3f} s, mmpanet {ours:.3f} s, {row.speedup} times as '
            f'fast, at most {row.difference:.1e} of {row.magnitude:.1f} apart'
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(dict(environment=where, rows=[row._asdict() for row in rows]), indent=2) + '\n')
        print(args.out)


if __name__ == '__main__':
    main()
