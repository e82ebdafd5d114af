# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Generate the `shapes` dataset in COCO format."""

import argparse
import sys
from dataclasses import fields

from mmpanet.datasets.shapes import SHAPES, ShapesConfig, make_shapes
from mmpanet.utils.errors import MMPanetError


def parse_args():
    default = {field.name: field.default for field in fields(ShapesConfig)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('out_dir', nargs='?', default='data/shapes', help='folder of the dataset')
    parser.add_argument('--num-train', type=int, default=default['num_train'], help='training images')
    parser.add_argument('--num-val', type=int, default=default['num_val'], help='validation images')
    parser.add_argument('--image-size', type=int, nargs=2, metavar=('HEIGHT', 'WIDTH'), default=default['image_size'])
    parser.add_argument(
        '--classes', nargs='+', metavar='CLASS', default=default['classes'], help=f'some of {", ".join(SHAPES)}'
    )
    parser.add_argument(
        '--num-objects',
        type=int,
        nargs=2,
        metavar=('FEWEST', 'MOST'),
        default=default['num_objects'],
        help='number of objects that are drawn for an image',
    )
    parser.add_argument(
        '--area',
        type=float,
        nargs=2,
        metavar=('SMALLEST', 'LARGEST'),
        default=default['area'],
        help='area of an object in pixels',
    )
    parser.add_argument(
        '--min-visible',
        type=float,
        default=default['min_visible'],
        help='smallest visible fraction of an object; others are left out',
    )
    parser.add_argument(
        '--empty-fraction', type=float, default=default['empty_fraction'], help='fraction of the images without objects'
    )
    parser.add_argument('--seed', type=int, default=default['seed'])
    parser.add_argument('--workers', type=int, default=2, help='number of processes')
    parser.add_argument('--force', action='store_true', help='replace a dataset made with other settings')
    return parser.parse_args()


def main():
    args = vars(parse_args())
    out_dir, force, workers = (args.pop(key) for key in ('out_dir', 'force', 'workers'))
    try:
        counts = make_shapes(out_dir, ShapesConfig(**args), force, workers)
    except (MMPanetError, OSError) as error:
        sys.exit(f'make_shapes: {error}')
    if counts is None:
        print(f'{out_dir}: there already')
        return
    for split, (images, objects) in counts.items():
        print(f'{out_dir}: {split}: {images} images, {objects} objects')


if __name__ == '__main__':
    main()
