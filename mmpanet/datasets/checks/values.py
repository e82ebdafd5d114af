# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Values of JSON, and how messages show them."""

from typing import Any


def is_number(value: Any) -> bool:
    """Whether a value is a finite number of a size that coordinates can have."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15


def is_integer(value: Any) -> bool:
    """Whether a value is an integer; ``True`` and ``1.0`` are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, such as ``1`` or ``1.0``, which are equal as ids."""
    return is_integer(value) or (isinstance(value, float) and value.is_integer())


def short(value: Any, limit: int = 60) -> str:
    """A value as Python would write it, cut off after ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else f'{text[:limit]}...'


def some(values: Any, limit: int = 5) -> str:
    """The first values of many, and how many more there are."""
    values = list(values)
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return (', '.join(map(short, values[:limit])) or 'none') + more


def fits_in_a_line(text: str) -> bool:
    """Whether a message can show a path in one line: it holds no line break, no tab and no zero byte."""
    return not any(ord(character) < ord(' ') for character in text)
