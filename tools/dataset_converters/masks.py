# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convert images and their mask images to COCO format."""

import argparse
import sys

from mmpanet.datasets.converters.arguments import add_conversion_arguments, print_converted
from mmpanet.datasets.converters.masks import KINDS, convert_masks
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', help='folder of the images, at any depth')
    parser.add_argument('masks', help='folder of their masks: NAME.png, or with --kind files NAME/*.png')
    parser.add_argument('out_dir', help='folder of the dataset')
    parser.add_argument(
        '--kind',
        choices=KINDS,
        required=True,
        help='what an object is: all pixels of one value (objects), a connected part of the pixels of '
        'one value, which says its class (classes), or a file (files)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        default=('object',),
        help='class names in the order of their ids (default: object)',
    )
    parser.add_argument(
        '--values', nargs='+', type=int, metavar='N', help='the value of each class in the masks (default: 1 2 3 ...)'
    )
    parser.add_argument(
        '--class-divisor',
        type=int,
        metavar='N',
        help='with --kind objects: value // N says the class (Cityscapes: 1000)',
    )
    parser.add_argument(
        '--ignore-values',
        nargs='+',
        type=int,
        metavar='N',
        default=(),
        help='values that are no object, such as 255 or -1 for borders; 0 never is one',
    )
    parser.add_argument(
        '--min-area', type=int, default=1, metavar='PIXELS', help='leave out objects of fewer pixels (default: 1)'
    )
    parser.add_argument('--mask-suffix', default='', metavar='TEXT', help='_mask finds a_mask.png for a.jpg')
    parser.add_argument(
        '--empty-without-mask',
        action='store_true',
        help='take an image without a mask as an image without objects; by default it is a fault',
    )
    add_conversion_arguments(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        converted = convert_masks(**vars(args))
    except (MMPanetError, OSError) as error:
        sys.exit(f'masks: {error}')
    print_converted(args.out_dir, converted)


if __name__ == '__main__':
    main()
