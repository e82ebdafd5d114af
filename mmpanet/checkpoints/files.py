# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reading checkpoints from elsewhere without running their code, and writing them whole."""

import pickle
import re
from pathlib import Path
from typing import Dict, Union

import torch

from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import atomic_write


def load_untrusted(path: Union[str, Path]) -> Dict:
    """Read a checkpoint from elsewhere, as data only.

    Args:
        path (str | Path): A file that ``torch.save`` wrote.

    Raises:
        CheckpointError: If it is no such file, is cut off, or holds anything
            that would have to be executed to be read.
    """
    try:
        with open(path, 'rb') as file:
            file.read(1)
    except OSError as error:
        raise CheckpointError(f'{path}: cannot be read: {error.strerror}') from error
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file raises errors of every kind, OSError too
        refused = re.search(r'GLOBAL ([A-Za-z_][\w.]*) (was not|whose)', str(error))
        if refused:
            raise CheckpointError(
                f'{path}: is not read, because it holds {refused[1]}, and '
                'only tensors and plain data can be read without running code '
                'of the file. If you trust it, save just its state dict where '
                'it was made'
            ) from error
        # torch's own words on this one advise to switch the check off
        reason = (
            ''
            if isinstance(error, pickle.UnpicklingError)
            else f' ({str(error).splitlines()[0]})'
            if str(error)
            else ''
        )
        raise CheckpointError(
            f'{path}: is damaged or no file of torch.save{reason}; if it was downloaded, do it again'
        ) from error


def save_whole(checkpoint: Dict, path: Union[str, Path]) -> None:
    """Write a checkpoint completely, or leave what was there."""
    with atomic_write(path) as part:
        torch.save(checkpoint, part)


def check_paths(source: Path, target: Path) -> None:
    """Refuse a target that is the source, or in a folder that is not there."""
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f'{source}: would be overwritten by its own conversion; name another target')
    if not target.parent.is_dir():
        raise CheckpointError(f'{target.parent}: no such folder to write to')
