# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Check the data that a config trains and tests on: ``python tools/misc/check_dataset.py CONFIG``."""

import argparse
import sys

import mmpanet  # noqa: F401  registers what the config may name
from mmpanet.datasets.checks import check_datasets, find_datasets
from mmpanet.utils.argument_types import add_cfg_options
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import DataError, MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(
        description='Check the annotations (COCO format) and images of a config. The exit code is 1 if anything must '
        'be fixed.'
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val', 'test'],
        help='the splits to check (default: all)',
    )
    parser.add_argument(
        '--images',
        action='store_true',
        help='decode every image; otherwise the headers of up to 1000 images of each dataset are read, as by '
        'tools/train.py',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        cfg = load_config(args.config, args.cfg_options)
        left_out = check_datasets(cfg, *args.splits, decode_images=args.images)
    except DataError as error:
        sys.exit('\n'.join(error.faults))
    except MMPanetError as error:
        sys.exit(f'check_dataset.py: {error}')
    for text in left_out:
        print(f'note: {text}')
    for split in args.splits:
        sources = find_datasets(cfg, split)
        for source in sources:
            print(f'{split}: {source.ann_file}: nothing wrong')
        if not sources:
            print(f'{split}: not checked: no dataset that CocoDataset reads from a file')


if __name__ == '__main__':
    main()
