# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Types of command line arguments for argparse."""

import argparse


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text) if text.isdigit() else 0
    if not value:
        raise argparse.ArgumentTypeError(f'{text!r} is not a positive integer')
    return value


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number from 0 to 1')
    return value
