# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Tables as text and as Markdown, by ``tabulate``."""

from typing import Any, Sequence

from tabulate import tabulate


def text_table(rows: Sequence[Sequence[Any]], headers: Sequence[str] = ()) -> str:
    """A table for a terminal; numbers are written as they are given."""
    return tabulate(rows, headers, tablefmt='simple' if headers else 'plain', disable_numparse=True)


def markdown_table(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """A table of GitHub's Markdown; numbers are written as they are given."""
    lines = ['| ' + ' | '.join(map(str, row)) + ' |' for row in (headers, ['---'] * len(headers), *rows)]
    return '\n'.join(lines)
