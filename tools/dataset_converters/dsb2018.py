# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convert Data Science Bowl 2018 (nuclei) to COCO format."""

import argparse
import sys

from mmpanet.datasets.converters.conversion import ON_ERROR
from mmpanet.datasets.converters.dsb2018 import convert_dsb2018


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('source', help='folder of <id>/images/*.png and <id>/masks/*.png')
    parser.add_argument('out_dir', nargs='?', default='data/dsb2018', help='where to write it')
    parser.add_argument('--val-fraction', type=float, default=0.2, help='part of the samples that go to val')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another split')
    parser.add_argument(
        '--on-error', choices=ON_ERROR, default='skip', help='leave out what is bad and name it, or stop at the first'
    )
    parser.add_argument('--force', action='store_true', help='replace a dataset made of other files or arguments')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        converted = convert_dsb2018(**vars(args))
    except (ValueError, OSError) as error:
        sys.exit(f'dsb2018: {error}')
    if converted is None:
        print(f'{args.out_dir}: there already')
        return
    for problem in converted.problems:
        print(f'left out: {problem}', file=sys.stderr)
    for split, (images, objects) in converted.counts.items():
        print(f'{args.out_dir}: {split}: {images} images, {objects} objects')


if __name__ == '__main__':
    main()
