# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the command lines in ``tools/dataset_converters`` share."""

import argparse
import sys
from typing import Optional

from .conversion import ON_ERROR, Converted


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that every conversion has."""
    parser.add_argument('--val-fraction', type=float, default=0.2, help='fraction of the images for val (default: 0.2)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the split into train and val (default: 0)')
    parser.add_argument(
        '--on-error',
        choices=ON_ERROR,
        default='skip',
        help='leave out what has a fault and name it, or stop at the first fault (default: skip)',
    )
    parser.add_argument(
        '--force', action='store_true', help='replace a dataset made from other files or with other arguments'
    )


def print_converted(out_dir: str, converted: Optional[Converted]) -> None:
    """Print what was written, what was left out, and the classes for the config."""
    if converted is None:
        print(f'{out_dir}: there already')
        return
    for problem in converted.problems:
        print(f'left out: {problem}', file=sys.stderr)
    for note in converted.notes:
        print(f'note: {note}', file=sys.stderr)
    for split, (images, objects) in converted.counts.items():
        print(f'{out_dir}: {split}: {images} images, {objects} objects')
    print(f'classes={converted.classes!r}, num_classes={len(converted.classes)}')
