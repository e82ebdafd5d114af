# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Files and folders that are written whole or not at all."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Union

from .errors import ConfigError

PathLike = Union[str, 'os.PathLike[str]']
LONGEST = 40  # characters of a name in the names of temporary folders


def make_folder(path: PathLike, key: str) -> None:
    """Make a folder that a run writes to, before the run.

    Raises:
        ConfigError: If it cannot be made, or not be written to. The message names ``key``.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'{key} {os.fspath(path)}: {error.strerror}: {error.filename}') from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f'{key} {os.fspath(path)}: no permission to write there')


def make_place_for(file: PathLike, key: str) -> None:
    """Make the folder of a file that a run writes, before the run.

    Raises:
        ConfigError: As :func:`make_folder`, and if there is a folder of this name. The message names ``key``.
    """
    make_folder(Path(file).absolute().parent, key)
    if Path(file).is_dir():
        raise ConfigError(f'{key} {os.fspath(file)}: is a folder')


@contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Yield a path to write to, beside ``path``; it replaces ``path`` at the end of the ``with`` block.

    If the block raises, or writes nothing, ``path`` stays as it was. The yielded path has the same suffix, because
    OpenCV and others choose the format by it.

    Args:
        path: The file to write. Its folder must exist.
    """
    path = Path(path)
    # No longer than a file's name may be, whatever the name of this one.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f'.{path.stem[:LONGEST]}{path.suffix}.') as folder:
        part = Path(folder, path.name)
        yield part
        if not part.exists():
            return
        with open(part, 'rb+') as stream:
            os.fsync(stream.fileno())  # a power cut must not leave the new name with half of the content
        os.replace(part, path)


def write_text(path: PathLike, text: str) -> None:
    """Write a text file whole or not at all. A link is followed, and a device or a pipe is written to."""
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding='utf-8')
        return
    with atomic_write(path.resolve()) as part:
        part.write_text(text, encoding='utf-8')


def write_json(path: PathLike, content: Any, indent: Optional[int] = 2) -> None:
    """Write a JSON file whole or not at all.

    Args:
        path: The file to write. Its folder must exist.
        content: What ``json.dumps`` takes.
        indent: Spaces per level. None writes one line.
    """
    write_text(path, json.dumps(content, indent=indent) + '\n')


@contextmanager
def atomic_folder(path: PathLike) -> Iterator[Path]:
    """Yield an empty folder to build in, beside ``path``; it replaces ``path`` at the end of the ``with`` block.

    If the block raises, ``path`` stays as it was. A link is followed, not replaced.

    Args:
        path: The folder. Whatever it holds is removed: check before that it may be.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f'.{path.name[:LONGEST]}.', dir=path.parent))
    try:
        yield building
        building.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        _replace_folder(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _replace_folder(new: Path, old: Path) -> None:
    if not old.exists():
        os.rename(new, old)
        return
    aside = Path(tempfile.mkdtemp(prefix=f'.{old.name[:LONGEST]}.', dir=old.parent))
    try:
        os.rename(old, aside / 'old')
        os.rename(new, old)
    finally:
        # An interrupt comes before or behind any of these calls, so what is there decides what is undone.
        if not old.exists() and (aside / 'old').exists():
            os.rename(aside / 'old', old)
        shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
