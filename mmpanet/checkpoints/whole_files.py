# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checkpoint files that are whole, and those that were cut off or damaged."""

import re
import shutil
import zipfile
from pathlib import Path
from typing import Optional, Union

from mmengine.logging import print_log


def last_whole_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The checkpoint in a work folder to resume from, as a string, or None if there is none.

    That is the one that mmengine's ``last_checkpoint`` names, or if it is not whole the latest (``epoch_*.pth``,
    ``iter_*.pth``) that is, beside it or in the work folder. A work folder may have been moved since.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named:
        return named
    folders = [Path(work_dir)]
    if named and not _is_another_run(Path(named).parent, Path(work_dir)):
        folders.insert(0, Path(named).parent)
    numbered = [
        path for folder in folders for path in folder.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name)
    ]
    numbered.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    candidates = [folder / Path(named).name for folder in folders if named] + numbered
    for path in candidates:
        if is_whole(path):
            if named and path.name != Path(named).name:
                print_log(f'{named} is not whole; going on from {path}', 'current')
            return str(path)
    return None


def _is_another_run(folder: Path, work_dir: Path) -> bool:
    """Whether a folder of checkpoints is the work folder of another run, and not an ``out_dir`` of ``CheckpointHook``.

    A work folder that was copied, or moved before its path was trained in again, still names the path it had.
    """
    return folder.resolve() != work_dir.resolve() and Path(folder, 'last_checkpoint').is_file()


def remove_unfinished(folder: Union[str, Path]) -> None:
    """Remove what a killed process leaves of a checkpoint that it was writing: a hidden folder, named after it."""
    for part in Path(folder).glob('.*.pth.*'):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)


def is_whole(path: Union[str, Path]) -> bool:
    """Whether a checkpoint file is there and whole; nothing in it is unpickled.

    Since torch 1.6 it is a zip file, with its list of contents at the end and a checksum for each of them.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, OSError):
        return False
