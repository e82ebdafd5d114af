# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the command lines of the converters under ``tools/dataset_converters`` share."""

import argparse
import sys
from typing import Optional

from .conversion import ON_ERROR, Converted


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every conversion has."""
    parser.add_argument('--val-fraction', type=float, default=0.2, help='part of the images that go to val (0.2)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, another split (0)')
    parser.add_argument(
        '--on-error',
        choices=ON_ERROR,
        default='skip',
        help='leave out what is bad and name it, or stop at the first (skip)',
    )
    parser.add_argument('--force', action='store_true', help='replace a dataset made of other files or arguments')


def print_converted(out_dir: str, converted: Optional[Converted]) -> None:
    """Say what was written, and what a config has to say about it."""
    if converted is None:
        print(f'{out_dir}: there already')
        return
    for problem in converted.problems:
        print(f'left out: {problem}', file=sys.stderr)
    for split, (images, objects) in converted.counts.items():
        print(f'{out_dir}: {split}: {images} images, {objects} objects')
    print(f'classes={converted.classes!r}, num_classes={len(converted.classes)}')
