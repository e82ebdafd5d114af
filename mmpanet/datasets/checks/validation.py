# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checks annotations in COCO format, before a training reads them.

MMDetection leaves out what it cannot use and says nothing: an annotation file of other class names trains on nothing,
one class name that is missing shifts all labels behind it, a polygon with an odd number of coordinates is no object any
more. Others end in a ``KeyError`` or a bare ``AssertionError`` in the middle of a run. Here each of them is named, with
the file, the entry, what it holds and what it takes.
"""

import json
import math
import os
from collections import Counter
from numbers import Real
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import init_default_scope
from PIL import Image, ImageOps

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmpanet.utils.errors import DataError


class Findings(NamedTuple):
    """What a check finds.

    Attributes:
        faults (list[str]): What must be mended.
        left_out (list[str]): Objects that MMDetection leaves out, and may: those without a pixel.
    """

    faults: List[str]
    left_out: List[str]


class CocoSource(NamedTuple):
    """A dataset of a config that MMDetection's ``CocoDataset`` reads.

    Attributes:
        key (str): Where it stands in the config.
        ann_file (Path): The annotation file.
        image_folder (Path): The folder that its file names are relative to.
        classes (Sequence[str] | str): What ``metainfo`` says, or else the dataset class.
        masks (bool): Whether its pipeline loads masks.
        return_classes (bool): Whether it is for a model that is given class names as text.
    """

    key: str
    ann_file: Path
    image_folder: Path
    classes: Union[Sequence[str], str]
    masks: bool
    return_classes: bool


def check_datasets(cfg: Config, *splits: str, decode_images: bool = False) -> List[str]:
    """Check the data that a config trains, validates or tests on.

    Datasets that are not read by MMDetection's ``CocoDataset``, or not from a file system, are not looked at.

    Args:
        cfg (Config): The config.
        splits (str): Any of 'train', 'val' and 'test'.
        decode_images (bool): Decode every image too, and compare its size with the annotated one. Takes as long as
            reading all of them. Defaults to False.

    Returns:
        list[str]: The objects that MMDetection leaves out without a word, though nothing need be wrong with them.

    Raises:
        DataError: If anything must be mended; it lists all of it.
    """
    faults, left_out, seen = [], [], set()
    for split in splits:
        for source in find_datasets(cfg, split):
            if source._replace(key='') in seen:  # val and test are often the same
                continue
            faults += _head_faults(cfg, source) if split == 'train' else _evaluator_faults(cfg, split)
            names, class_faults = _class_names(source)
            faults += class_faults
            if not class_faults:
                found = check_annotations(
                    source.ann_file, names, source.image_folder, source.masks, split != 'test', decode_images
                )
                faults += found.faults
                left_out += found.left_out
            seen.add(source._replace(key=''))
    if faults:
        raise DataError(*dict.fromkeys(faults))
    return left_out


def find_datasets(cfg: Config, split: str) -> List[CocoSource]:
    """Datasets in COCO format of a split, those inside wrappers (``RepeatDataset`` and the like) too."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    key = f'{split}_dataloader'
    return list(_walk(cfg.get(key) or {}, key))


def _walk(node: Any, key: str) -> Iterator[CocoSource]:
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _walk(item, f'{key}[{i}]')
    elif isinstance(node, dict):
        dataset_class = _dataset_class(node)
        if dataset_class is not None:
            yield _source(node, key, dataset_class)
            return
        for name in ('dataset', 'datasets'):
            if name in node:
                yield from _walk(node[name], f'{key}.{name}')


def _dataset_class(node: dict) -> Optional[type]:
    """The class of a dataset's config, if it reads annotations the way that ``CocoDataset`` does."""
    kind = node.get('type')
    if isinstance(kind, str):
        kind = DATASETS.get(kind)
    if not isinstance(kind, type) or not issubclass(kind, CocoDataset) or not node.get('ann_file'):
        return None
    own_reader = any(
        getattr(kind, name) is not getattr(CocoDataset, name) for name in ('load_data_list', 'parse_data_info')
    )
    elsewhere = node.get('backend_args') or '://' in node['ann_file'] or '://' in (node.get('data_root') or '')
    return None if own_reader or elsewhere else kind


def _source(node: dict, key: str, dataset_class: type) -> CocoSource:
    root = node.get('data_root') or ''
    classes = (node.get('metainfo') or {}).get('classes', dataset_class.METAINFO['classes'])
    return CocoSource(
        key=key,
        ann_file=Path(root, node['ann_file']),
        image_folder=Path(root, (node.get('data_prefix') or {}).get('img', '')),
        classes=classes if isinstance(classes, str) else tuple(classes),
        masks=any(isinstance(step, dict) and step.get('with_mask') for step in node.get('pipeline') or ()),
        return_classes=bool(node.get('return_classes')),
    )


def _class_names(source: CocoSource) -> Tuple[Tuple[str, ...], List[str]]:
    """Names of the classes, and what is wrong with them."""
    key, classes = f'{source.key}.metainfo.classes', source.classes
    if isinstance(classes, str):
        if not os.path.isfile(classes):  # mmengine reads a file of names
            return (), [
                f'{key}={classes!r} is one string and no file of names, it takes a tuple of names; of a single '
                f'one: ({classes!r}, )'
            ]
        classes = tuple(list_from_file(classes))
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        return (), [
            f'{key}={classes!r} '
            + (f'holds {twice[0]!r} twice' if twice else 'is empty')
            + ', it takes one name or more, each once'
        ]
    return classes, []


def _head_faults(cfg: Config, source: CocoSource) -> Iterator[str]:
    """Heads with another number of classes than the data they are trained on."""
    if source.return_classes or isinstance(source.classes, str):
        return
    model = cfg.get('model') or {}
    roi_head = model.get('roi_head') or {}
    heads = {
        'model.bbox_head': model.get('bbox_head'),
        'model.roi_head.bbox_head': roi_head.get('bbox_head'),
        'model.roi_head.mask_head': roi_head.get('mask_head'),
    }
    for key, head in heads.items():
        for stage, one in enumerate(head if isinstance(head, (list, tuple)) else [head]):
            num_classes = one.get('num_classes') if isinstance(one, dict) else None
            if num_classes is not None and num_classes != len(source.classes):
                where = f'{key}[{stage}]' if isinstance(head, (list, tuple)) else key
                yield (
                    f'{where}.num_classes={num_classes}, but {source.key} has {len(source.classes)} classes: '
                    f'{_some(source.classes)}'
                )


def _evaluator_faults(cfg: Config, split: str) -> Iterator[str]:
    """Evaluators whose annotation file is not there, which mmengine would read after the training."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        ann_file = evaluator.get('ann_file')
        if ann_file and '://' not in ann_file and not evaluator.get('backend_args') and not os.path.isfile(ann_file):
            yield f'{split}_evaluator.ann_file={ann_file!r}: no such file'


def check_annotations(
    ann_file: Union[str, Path],
    classes: Sequence[str],
    image_folder: Union[str, Path, None] = None,
    masks: bool = False,
    objects: bool = True,
    decode_images: bool = False,
) -> Findings:
    """Check one annotation file in COCO format.

    Args:
        ann_file (str | Path): The file.
        classes (Sequence[str]): Class names of the model.
        image_folder (str | Path, optional): Where the images lie. By default they are not looked for.
        masks (bool): Whether masks are learned or evaluated. Defaults to False.
        objects (bool): Whether there have to be objects: a test set may come without. Defaults to True.
        decode_images (bool): Decode every image, and compare its size. Defaults to False.

    Returns:
        Findings: All that was found.
    """
    ann_file = Path(ann_file)
    try:
        data = _read(ann_file, objects)
    except DataError as error:
        return Findings(error.faults, [])
    categories, faults = _categories(data['categories'], classes)
    images, image_faults = _images(data['images'])
    faults += image_faults
    object_faults, left_out, of_classes = _objects(data.get('annotations', ()), images, categories, classes, masks)
    faults += object_faults
    if objects and images and not faults and not of_classes:
        faults.append(
            f'annotations: none of {len(data["annotations"])} is of a class of {_some(classes)} and covers a '
            'pixel, so that there is nothing to learn or evaluate'
        )
    if image_folder is not None:
        faults += _file_faults(images.values(), Path(image_folder), decode_images)
    return Findings([f'{ann_file}: {fault}' for fault in faults], [f'{ann_file}: {text}' for text in left_out])


def _read(ann_file: Path, objects: bool) -> dict:
    if not ann_file.is_file():
        raise DataError(f'{ann_file}: no such annotation file')
    try:
        with open(ann_file, encoding='utf-8') as file:
            data = json.load(file)
    except ValueError as error:
        raise DataError(f'{ann_file}: not a JSON file ({error})') from error
    if not isinstance(data, dict):
        raise DataError(
            f'{ann_file}: holds a {type(data).__name__}; COCO format is an object with images, '
            'annotations and categories'
        )
    keys = ('images', 'annotations', 'categories') if objects or 'annotations' in data else ('images', 'categories')
    missing = [key for key in keys if not isinstance(data.get(key), list)]
    if missing:
        held = f'{missing[0]!r} is {_short(data[missing[0]])}' if missing[0] in data else f'but {_some(data)}'
        raise DataError(
            f'{ann_file}: has no list {missing[0]!r}, {held}; COCO format is an object with images, '
            'annotations and categories'
        )
    return data


def _categories(entries: list, classes: Sequence[str]) -> Tuple[Dict[Any, str], List[str]]:
    """Names by id, and what is wrong: with the entries, and between them and the classes."""
    names, faults = {}, []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get('id')) or not isinstance(entry.get('name'), str):
            faults.append(f'categories[{i}] is {entry!r}, it takes an object with id (a whole number) and name')
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
            f'classes holds {_some(missing)}, which no category is called; the categories are '
            f'{_some(names.values())}. Set metainfo.classes to names from among them, and num_classes of '
            'the heads to their number'
        ]
    ordered = tuple(name for name in names.values() if name in classes)
    if ordered != tuple(classes):
        return names, [
            f'classes is {_some(classes)}, but the categories come as {_some(ordered)}: MMDetection numbers '
            'labels by the order of the file, so that classes takes the same'
        ]
    return names, []


def _images(entries: list) -> Tuple[Dict[Any, dict], List[str]]:
    """Images by id, and what is wrong with them."""
    images, faults = {}, []
    if not entries:
        faults.append('images is empty, it takes one image or more')
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get('id')):
            faults.append(
                f'images[{i}] is {_short(entry)}, it takes an object with id (a whole number), file_name, '
                'height and width'
            )
            continue
        where = f'images[{i}] (id {entry["id"]})'
        if entry['id'] in images:
            faults.append(
                f'{where}: another image has this id too ({images[entry["id"]].get("file_name")!r}), each takes its own'
            )
            continue
        images[entry['id']] = entry
        if not isinstance(entry.get('file_name'), str) or not entry['file_name']:
            faults.append(f'{where}: file_name is {entry.get("file_name")!r}, it takes a path below the image folder')
        for side in ('height', 'width'):
            if not _is_id(entry.get(side)) or entry[side] < 1:
                faults.append(f'{where}: {side} is {entry.get(side)!r}, it takes a whole number of pixels above 0')
                entry[side] = math.inf  # not known: nothing lies outside it
    return images, faults


def _objects(
    entries: Sequence[Any], images: Dict[Any, dict], categories: Dict[Any, str], classes: Sequence[str], masks: bool
) -> Tuple[List[str], List[str], int]:
    """What is wrong with annotations, what is left out of them, and the number of those that count."""
    faults, left_out, seen, of_classes = [], [], set(), 0
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            faults.append(f'annotations[{i}] is {_short(entry)}, it takes an object')
            continue
        where = f'annotations[{i}] (id {entry.get("id")!r})'
        if not _is_id(entry.get('id')) or entry['id'] in seen:
            faults.append(f'{where}: id takes a whole number, each its own')
        seen.add(str(entry['id']) if isinstance(entry.get('id'), (dict, list)) else entry.get('id'))
        found = list(_references(entry, images, categories))
        if not found and not entry.get('ignore'):
            image = images[entry['image_id']]
            found = list(_box_faults(entry, image))
            if masks and not found and image['height'] * image['width'] < math.inf:
                found = [f'segmentation {fault}' for fault in _mask_faults(entry.get('segmentation'), image)]
            empty = not found and _empty(entry)
            if empty:
                left_out.append(f'{where}: {empty}, and MMDetection leaves it out')
            of_classes += not found and not empty and categories[entry['category_id']] in classes
        faults += [f'{where}: {fault}' for fault in found]
    return faults, left_out, of_classes


def _references(entry: dict, images: Dict[Any, dict], categories: Dict[Any, str]) -> Iterator[str]:
    for key, known, what in (('image_id', images, 'image'), ('category_id', categories, 'category')):
        value = entry.get(key)
        if not _is_id(value) or value not in known:
            yield f'{key} is {value!r}, which no {what} has; there are {_some(known)}'


def _box_faults(entry: dict, image: dict) -> Iterator[str]:
    box, area = entry.get('bbox'), entry.get('area')
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        yield f'bbox is {_short(box)}, it takes [x, y, width, height] in pixels, width and height not below 0'
        return
    x, y, width, height = box
    outside = x >= image['width'] or y >= image['height'] or x + width < 0 or y + height < 0
    if outside or _is_far([x, y, x + width, y + height], image):
        yield (
            f'bbox {box} (x, y, width, height) lies {"outside" if outside else "far beyond"} its image '
            f'{image.get("file_name")!r} of {image["height"]} x {image["width"]} (height x width)'
        )
    if not _is_number(area) or area < 0:
        yield f'area is {area!r}, it takes a number of pixels'


def _is_far(corners: Sequence[float], image: dict) -> bool:
    """Whether any of x, y, x, y, ... is off the image by more than its size."""
    return any(
        not -side <= value <= 2 * side
        for i, side in enumerate((image['width'], image['height']))
        for value in corners[i::2]
    )


def _empty(entry: dict) -> str:
    """Why an object covers no pixel by MMDetection's rules."""
    if min(entry['bbox'][2:]) < 1:
        return f'bbox {entry["bbox"]} is less than a pixel wide or high'
    return 'area is 0' if entry['area'] == 0 else ''


def _mask_faults(segmentation: Any, image: dict) -> Iterator[str]:
    if isinstance(segmentation, list) and segmentation:
        for i, polygon in enumerate(segmentation):
            if not isinstance(polygon, list) or not all(map(_is_number, polygon)):
                yield f'[{i}] is {_short(polygon)}, it takes a list of coordinates: x1, y1, x2, y2, ...'
            elif len(polygon) % 2 or len(polygon) < 6:
                yield (
                    f'[{i}] has {len(polygon)} coordinates, a polygon takes an even number of them, x1, y1, x2, y2, '
                    '..., and 6 or more'
                )
            elif _is_far(polygon, image):
                yield (
                    f'[{i}] is {_short(polygon)}, far beyond its image {image.get("file_name")!r} of '
                    f'{image["height"]} x {image["width"]} (height x width)'
                )
        return
    if not isinstance(segmentation, dict) or 'counts' not in segmentation:
        yield f'is {_short(segmentation)}, it takes polygons or RLE (counts and size)'
        return
    size = segmentation.get('size')
    if size != [image['height'], image['width']]:
        yield (
            f'has size {size!r}, it takes that of its image {image.get("file_name")!r}: '
            f'[{image["height"]}, {image["width"]}] (height, width)'
        )
        return
    try:
        runs = rle_runs(segmentation['counts'])
    except ValueError as error:
        yield f'has counts {_short(segmentation["counts"])} that are no RLE ({error})'
        return
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        yield (
            f'has counts that say {runs.sum()} pixels, it takes {size[0] * size[1]}, '
            f'those of its image of {size[0]} x {size[1]}'
        )


def rle_runs(counts: Union[str, list]) -> np.ndarray:
    """Lengths of the runs of an RLE, in turn outside and inside of the object.

    ``rleFrString`` of pycocotools: five bits a character, the lowest first, bit 5 says that more follow, bit 4 of the
    last one is the sign; from the fourth run on the difference to the run before the last.

    Args:
        counts (str | list[int]): Compressed, or not.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(counts, list):
        if not all(_is_id(count) and 0 <= count < 2**32 for count in counts):
            raise ValueError('a list takes lengths of runs')
        return np.array(counts, np.int64)
    if not isinstance(counts, str) or not counts:
        raise ValueError('it takes a string or a list')
    codes = np.frombuffer(counts.encode('utf-8'), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    if codes.min() < 0 or codes.max() > 63 or not len(last) or last[-1] != len(codes) - 1:
        raise ValueError('the string is damaged')
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 7:  # 32 bits
        raise ValueError('the string is damaged')
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, first)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _file_faults(images: Sequence[dict], folder: Path, decode: bool) -> Iterator[str]:
    """Images that are not there, and with ``decode`` those that are damaged or of another size."""
    if not folder.is_dir():
        yield f'its images should lie in {folder}, and there is no such folder (data_root, data_prefix.img)'
        return
    listed: Dict[Path, set] = {}
    for image in images:
        name = image.get('file_name')
        if not isinstance(name, str) or not name:
            continue
        path = folder / name
        if path.parent not in listed:  # one listing instead of a look at every file
            listed[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()
        if path.name not in listed[path.parent]:
            yield f'image {name!r} (id {image["id"]}) is not in {folder} (data_root, data_prefix.img)'
        elif decode:
            yield from _decode_faults(path, image)


def _decode_faults(path: Path, image: dict) -> Iterator[str]:
    try:
        with Image.open(path) as opened:
            opened.load()
            width, height = ImageOps.exif_transpose(opened).size  # as it is loaded for training
    except (OSError, SyntaxError, ValueError) as error:
        yield f'image {image["file_name"]!r} (id {image["id"]}) is damaged or no image: {path} ({error})'
        return
    if (height, width) != (image['height'], image['width']):
        yield (
            f'image {image["file_name"]!r} (id {image["id"]}) is {height} x {width} (height x width), annotated at '
            f'{image["height"]} x {image["width"]}'
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(value) < 1e15


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f'{text[:limit]}...'


def _some(values: Any, limit: int = 5) -> str:
    values = list(values)
    more = f' and {len(values) - limit} more' if len(values) > limit else ''
    return (', '.join(map(repr, values[:limit])) or 'nothing') + more
