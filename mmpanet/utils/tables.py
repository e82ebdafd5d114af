# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Tables as text and as Markdown."""

from typing import Any, List, Sequence

from tabulate import tabulate


def text_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> str:
    """A table for a terminal. Numbers are written as they are given; columns of numbers are aligned to the right."""
    lines = [*rows]
    align = ['right' if _holds_numbers(column) else 'left' for column in zip(*lines)]
    return tabulate(
        lines, headers, tablefmt='simple' if headers else 'plain', disable_numparse=True, colalign=align or None
    )


def markdown_table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """A table in GitHub's Markdown, with a line break at its end. Numbers are written as they are given."""
    lines: List[Sequence[Any]] = [headers, ['---'] * len(headers), *rows]
    return ''.join('| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in line) + ' |\n' for line in lines)


def _holds_numbers(column: Sequence[Any]) -> bool:
    """Whether each cell begins with a digit or a sign, as in '1.00 (0.98 to 1.02)', or is '-' or empty."""
    return all(str(cell)[:1] in '+-.0123456789' for cell in column)
