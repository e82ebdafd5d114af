# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convert a folder of LabelMe's JSON files to COCO format."""

import argparse
import sys

from mmpanet.datasets.converters.arguments import add_conversion_arguments, print_converted
from mmpanet.datasets.converters.labelme import convert_labelme
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='folder of the JSON files and their images, at any depth')
    parser.add_argument('out_dir', help='folder of the dataset')
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='LABEL',
        help='labels in the order of their ids; by default all that are found, sorted',
    )
    parser.add_argument(
        '--encoding', help='encoding of the JSON files (default: UTF-8, and GB18030 if a file is not UTF-8)'
    )
    parser.add_argument('--ignore', nargs='+', metavar='LABEL', default=(), help='labels to leave out')
    add_conversion_arguments(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        converted = convert_labelme(**vars(args))
    except (MMPanetError, OSError) as error:
        sys.exit(f'labelme: {error}')
    print_converted(args.out_dir, converted)


if __name__ == '__main__':
    main()
