"""Check the data that a config trains and tests on: ``python tools/misc/check_dataset.py CONFIG``."""

import argparse
import sys

from mmengine.config import DictAction

import mmpanet  # noqa: F401  registers what the config may name
from mmpanet.datasets.checks.validation import check_datasets, find_datasets
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import DataError


def parse_args():
    parser = argparse.ArgumentParser(
        description='Look for what is wrong with the annotations (COCO format) and images '
        'of a config; ends with 1 if there is anything'
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=['train', 'val', 'test'],
        default=['train', 'val', 'test'],
        help='which of its data (all)',
    )
    parser.add_argument('--images', action='store_true', help='decode every image, and compare its size')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings that override the config'
    )
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    found = {split: find_datasets(cfg, split) for split in args.splits}
    try:
        left_out = check_datasets(cfg, *args.splits, decode_images=args.images)
    except DataError as error:
        sys.exit('\n'.join(error.faults))
    for text in left_out:
        print(f'left out: {text}')
    for split, sources in found.items():
        for source in sources:
            print(f'{split}: {source.ann_file}: nothing wrong')
        if not sources:
            print(f'{split}: no dataset that CocoDataset reads from a file, nothing was looked at')


if __name__ == '__main__':
    main()
