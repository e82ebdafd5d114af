# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The files that are taken for images and videos, and the files of a folder without those of the operating system."""

import os
import unicodedata
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from .errors import DataError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')

# Names in lower case. macOS writes `.DS_Store`, `._NAME` and `__MACOSX`, Windows the others, Synology `@eaDir`.
_SYSTEM_NAMES = {
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '__macosx',
    'icon\r',
    '$recycle.bin',
    'system volume information',
    '@eadir',
}


def is_system_file(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by an operating system."""
    return name.startswith('.') or name.lower() in _SYSTEM_NAMES


def normalized(name: str) -> str:
    """A name as most systems write it: macOS writes accents as characters of their own."""
    return unicodedata.normalize('NFC', name)


def folded_name(name: str) -> str:
    """The form in which names are compared without regard to case."""
    return normalized(name).casefold()


def list_files(folder: Path, suffixes: Optional[Sequence[str]] = None, recursive: bool = True) -> List[Path]:
    """The files in a folder, sorted, without hidden files and those that operating systems leave.

    Args:
        folder: The folder. Its own name may be anything.
        suffixes: Take only files with these suffixes, given in lower case and compared without regard to case.
        recursive: Look into the folders in it too.

    Raises:
        DataError: If a link in it points to nothing, or to a folder that it lies in.
    """
    found = (path for path in _walk(folder, recursive, ()) if suffixes is None or path.suffix.lower() in suffixes)
    return sorted(found)


def _walk(folder: Path, recursive: bool, above: Tuple[str, ...]) -> Iterator[Path]:
    above = (*above, os.path.realpath(folder))
    for path in folder.iterdir():
        if is_system_file(path.name):
            continue
        if path.is_file():
            yield path
        elif path.is_symlink() and not path.exists():
            raise DataError(f'{path}: a link to {os.readlink(path)}, which is not there')
        elif recursive and path.is_dir():
            if os.path.realpath(path) in above:
                raise DataError(f'{path}: a link to a folder that it lies in')
            yield from _walk(path, recursive, above)
