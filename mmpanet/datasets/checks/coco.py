# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The structure of an annotation file in COCO format: its lists, categories and images."""

import json
import math
import os
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from mmpanet.utils.errors import DataError
from .values import is_whole, short, some

FORMAT = 'COCO format is an object with images, annotations and categories'


def read_annotation_file(ann_file: Path, objects: bool) -> dict:
    """Read an annotation file.

    Args:
        ann_file: The file.
        objects: Whether it needs a list of annotations.

    Raises:
        DataError: If it cannot be read, or lacks one of its lists.
    """
    if not os.path.isfile(ann_file):  # False for a name that is too long, too
        raise DataError(f'{ann_file}: no such annotation file')
    try:
        with open(ann_file, encoding='utf-8') as file:  # as pycocotools, which takes no byte order mark either
            data = json.load(file)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{ann_file}: not a JSON file in UTF-8 without a byte order mark ({error})') from error
    except OSError as error:
        raise DataError(f'{ann_file}: cannot be read ({error.strerror})') from error
    if not isinstance(data, dict):
        raise DataError(f'{ann_file}: holds a {type(data).__name__}; {FORMAT}')
    keys = ('images', 'annotations', 'categories') if objects or 'annotations' in data else ('images', 'categories')
    missing = [key for key in keys if not isinstance(data.get(key), list)]
    if missing:
        held = f'{missing[0]!r} is {short(data[missing[0]])}' if missing[0] in data else f'but {some(data)}'
        raise DataError(f'{ann_file}: has no list {missing[0]!r}, {held}; {FORMAT}')
    return data


def check_categories(entries: list, classes: Sequence[str]) -> Tuple[Dict[Any, str], List[str]]:
    """Compare the categories with the classes of the model.

    Returns:
        The names of the categories by id, and what is wrong.
    """
    names: Dict[Any, str] = {}
    faults = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or 'id' not in entry or 'name' not in entry:
            faults.append(f'categories[{i}] is {short(entry)}, it takes an object with id (a whole number) and name')
        elif not is_whole(entry['id']):
            faults.append(f'categories[{i}]: id is {short(entry["id"])}, it takes a whole number')
        elif not isinstance(entry['name'], str):
            faults.append(f'categories[{i}]: name is {short(entry["name"])}, it takes a string')
        elif entry['id'] in names:
            faults.append(
                f'categories[{i}]: id {entry["id"]} is that of {names[entry["id"]]!r} too, each takes its own'
            )
        elif entry['name'] in names.values():
            faults.append(f'categories[{i}]: name {entry["name"]!r} is there twice, each takes its own')
        else:
            names[entry['id']] = entry['name']
    if faults:
        return names, faults
    missing = [name for name in classes if name not in names.values()]
    if missing:
        return names, [
            f'classes holds {some(missing)}, which no category is called; the categories are '
            f'{some(names.values())}. Set metainfo.classes to names from among them, and num_classes of '
            'the heads to their number'
        ]
    ordered = tuple(name for name in names.values() if name in classes)
    if ordered != tuple(classes):
        return names, [
            f'classes is {some(classes)}, but the categories come as {some(ordered)}: MMDetection numbers '
            'labels in the order of the file, so that classes needs the same order, here and in every other dataset'
        ]
    return names, []


def check_images(entries: list) -> Tuple[Dict[Any, dict], List[str]]:
    """Check the list of images.

    Returns:
        The images by id, and what is wrong. A size that is not known is infinite in them: nothing lies outside.
    """
    images: Dict[Any, dict] = {}
    faults = []
    if not entries:
        faults.append('images is empty, it takes one image or more')
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or 'id' not in entry:
            faults.append(
                f'images[{i}] is {short(entry)}, it takes an object with id (a whole number), file_name, '
                'height and width'
            )
            continue
        if not is_whole(entry['id']):
            faults.append(f'images[{i}]: id is {short(entry["id"])}, it takes a whole number')
            continue
        where = f'images[{i}] (id {entry["id"]})'
        if entry['id'] in images:
            faults.append(
                f'{where}: another image has this id too ({images[entry["id"]].get("file_name")!r}), each takes its own'
            )
            continue
        entry = images[entry['id']] = dict(entry)
        if not isinstance(entry.get('file_name'), str) or not entry['file_name'] or '\0' in entry['file_name']:
            faults.append(
                f'{where}: file_name is {short(entry.get("file_name"))}, it takes a path below the image folder'
            )
            entry['file_name'] = ''
        for side in ('height', 'width'):
            value = entry.get(side)
            if type(value) is not int or value < 1:  # pycocotools takes no 48.0
                faults.append(
                    f'{where}: {side} is {short(value)}, it takes a whole number of pixels above 0, without a decimal '
                    'point'
                )
                entry[side] = math.inf
    return images, faults


def shared_files(images: Dict[Any, dict]) -> List[str]:
    """Say how many images have the file name of another one, which MMDetection takes for images of their own."""
    first: Dict[str, Any] = {}
    shared = []
    for number, image in images.items():
        other = first.setdefault(image['file_name'], number)
        if other != number and image['file_name']:
            shared.append((number, other, image['file_name']))
    if not shared:
        return []
    number, other, name = shared[0]
    return [
        f'images: {len(shared)} of {len(images)} have the file_name of another one, and each is taken for an image of '
        f'its own, with its own objects alone; the first is {name!r} (id {number} and {other})'
    ]
