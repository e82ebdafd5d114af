# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The checkout that is tested, and its command lines."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tool_path(name: str) -> Path:
    """The file of a command line, wherever it lies below ``tools/``; ``mim run`` finds it by its name alone."""
    [path] = (ROOT / 'tools').rglob(f'{name}.py')
    return path
