# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The image files of an annotation file: are they there, whole, of the annotated size, and loaded completely?"""

import os
from pathlib import Path, PureWindowsPath
from typing import Dict, Iterable, Iterator, List, Optional

import cv2

from mmpanet.utils.errors import DataError
from mmpanet.utils.images import Loading, check_loadable, check_whole, decode_image, read_image_info
from mmpanet.utils.media import folded_name

# Formats that every OpenCV reads; a file of another one is decoded to find out
COMMON_FORMATS = ('JPEG', 'PNG', 'BMP', 'TIFF', 'WEBP', 'MPO', 'PPM')
SAMPLED = 1000  # headers that are read where not all images are decoded
WHERE = 'data_root, data_prefix.img'


def image_faults(images: Iterable[dict], folder: Path, decode: bool, loading: Loading) -> Iterator[str]:
    """Say what is wrong with image files.

    Args:
        images: The entries of an annotation file.
        folder: The folder that their names are relative to.
        decode: Decode all of them. Otherwise the headers of up to :data:`SAMPLED` images are read.
        loading: What the pipeline loads.
    """
    if not os.path.isdir(folder):
        yield f'its images should lie in {folder}, and there is no such folder ({WHERE})'
        return
    found = []
    listed: Dict[Path, set] = {}
    for image in images:
        name = image['file_name']
        path = folder / name
        if not name:
            continue
        if path.parent not in listed:  # one listing instead of a look at every file
            listed[path.parent] = _names(path.parent)
        if path.name not in listed[path.parent] and not os.path.isfile(path):
            hint = _hint(name, listed.setdefault(folder, _names(folder)))
            yield f'image {name!r} (id {image["id"]}) is not in {folder} ({WHERE}){hint}'
        else:
            found.append((path, image))
    step = 1 if decode else -(-len(found) // SAMPLED) or 1
    for path, image in found[::step]:
        fault = _file_fault(path, image, decode, loading)
        if fault:
            yield fault


def _names(folder: Path) -> set:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _hint(name: str, there: set) -> str:
    """What the folder holds under a similar name."""
    if '\\' in name:
        return '; it has backslashes, which only Windows reads as folders'
    last = PureWindowsPath(name).name
    similar = [last] if last in there else sorted(one for one in there if folded_name(one) == folded_name(last))
    return f'; {similar[0]!r} is there' if similar else ''


def _file_fault(path: Path, image: dict, decode: bool, loading: Loading) -> Optional[str]:
    where = f'image {image["file_name"]!r} (id {image["id"]})'
    try:
        info = read_image_info(path, where)
    except DataError as error:
        return str(error) if loading.first_page else None  # otherwise the file may be one that only its loader knows
    try:
        check_loadable(info, where, loading)
        if decode:
            check_whole(path, where)
        if loading.by_opencv and (decode or info.format not in COMMON_FORMATS):
            decode_image(path.read_bytes(), cv2.IMREAD_COLOR, where)
    except DataError as error:
        return str(error)
    size: List[float] = [info.height, info.width]
    annotated = [image['height'], image['width']]
    if size != annotated and (loading.turned or size[::-1] != annotated) and max(annotated) < float('inf'):
        turned = ', as its EXIF data turn it' if info.is_turned else ''
        return (
            f'{where} is {size[0]} x {size[1]} (height x width){turned}, annotated at {annotated[0]} x {annotated[1]}'
        )
    return None
