# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The files that are taken for images and videos, and the files of a folder without those of the operating system."""

from pathlib import Path
from typing import Iterator, List, Optional, Sequence

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


def list_files(folder: Path, suffixes: Optional[Sequence[str]] = None, recursive: bool = True) -> List[Path]:
    """The files in a folder, sorted, without hidden files and those that operating systems leave.

    Args:
        folder: The folder. Its own name may be anything.
        suffixes: Take only files with these suffixes, given in lower case and compared without regard to case.
        recursive: Look into the folders in it too.
    """
    found = (path for path in _walk(folder, recursive) if suffixes is None or path.suffix.lower() in suffixes)
    return sorted(found)


def _walk(folder: Path, recursive: bool) -> Iterator[Path]:
    for path in folder.iterdir():
        if is_system_file(path.name):
            continue
        if path.is_file():
            yield path
        elif recursive and path.is_dir():
            yield from _walk(path, recursive)
