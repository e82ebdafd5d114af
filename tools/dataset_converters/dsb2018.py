# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convert Data Science Bowl 2018 (nuclei) to COCO format."""

import argparse
import sys

from mmpanet.datasets.converters.arguments import add_conversion_arguments, print_converted
from mmpanet.datasets.converters.dsb2018 import convert_dsb2018
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='folder of <id>/images/*.png and <id>/masks/*.png')
    parser.add_argument(
        'out_dir', nargs='?', default='data/dsb2018', help='folder of the dataset (default: data/dsb2018)'
    )
    add_conversion_arguments(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        converted = convert_dsb2018(**vars(args))
    except (MMPanetError, OSError) as error:
        sys.exit(f'dsb2018: {error}')
    print_converted(args.out_dir, converted)


if __name__ == '__main__':
    main()
