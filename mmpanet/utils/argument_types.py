# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Types and actions of command line arguments for argparse."""

import argparse
from typing import Any

from mmengine.config import DictAction


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isdigit() else 0
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive integer')
    return value


def non_negative_int(text: str) -> int:
    """A whole number of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least 0')
    return int(text)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to 1')
    return value


class Overrides(DictAction):
    """mmengine's action for ``KEY=VALUE ...``, with a message for a word that is none."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: Any = None) -> None:
        for word in values:
            if '=' not in word:
                parser.error(f'{option_string}: {word!r} is no KEY=VALUE; all words behind it must be')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            parser.error(f'{option_string}: {error}')


def add_cfg_options(parser: argparse.ArgumentParser, text: str = 'settings that override the config') -> None:
    """Add ``--cfg-options KEY=VALUE ...`` with this help, under MMDetection's name."""
    parser.add_argument('--cfg-options', nargs='+', action=Overrides, metavar='KEY=VALUE', help=text)
