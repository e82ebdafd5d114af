# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checks of the files that a swap is about to write."""

import os
from pathlib import Path
from typing import Type

from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import PathLike


def check_target(out: PathLike, source: PathLike, what: str, error: Type[MMPanetError]) -> None:
    """Check that the result of swapping ``source`` can be written to ``out``.

    Args:
        out: The file to write.
        source: The file that is swapped.
        what: What both files are, for the message: 'config' or 'checkpoint'.
        error: The class of the error to raise.

    Raises:
        MMPanetError: If ``out`` is ``source`` itself, is a folder, or cannot be created.
    """
    target = Path(out)
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise error(f'{out} is the {what} to swap itself; give the new one another name')
    if target.is_dir():
        raise error(f'{out} cannot be written: it is a folder')
    parent = next((folder for folder in target.absolute().parents if folder.exists()), None)
    if parent is None or not parent.is_dir():
        raise error(f'{out} cannot be written: {parent} is not a folder')
    if not os.access(parent, os.W_OK):
        raise error(f'{out} cannot be written: no permission to write into the folder {parent}')
