# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""LabelMe's annotations to COCO format.

The source is a folder, with folders in it or not, of one JSON file an image, as LabelMe saves them, beside the images
or with the images in them (``imageData``). Shapes of one label and one ``group_id`` are one object, as LabelMe means.
"""

import base64
import binascii
import json
import math
from pathlib import Path, PureWindowsPath
from typing import Dict, Hashable, List, Optional, Sequence, Set, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmpanet.datasets.coco_writer import encode_instance, encode_polygons
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.images import decode_image
from mmpanet.utils.media import IMAGE_SUFFIXES
from .conversion import (
    Converted,
    Report,
    Sample,
    check_classes,
    check_conversion,
    convert_samples,
    fingerprint,
    loaded_size,
)

GENERATOR = 'mmpanet.datasets.converters.labelme'
VERSION = 1
CIRCLE_ERROR = 0.1  # pixels by which a circle's polygon may lie inside it


def _read_json(path: Path, name: str) -> dict:
    try:
        data = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise DataError(f'{name}: not JSON ({error})') from error
    if not isinstance(data, dict) or not isinstance(data.get('shapes'), list):
        raise DataError(f"{name}: not a LabelMe file, it has no list 'shapes'")
    for index, shape in enumerate(data['shapes']):
        if not isinstance(shape, dict) or not isinstance(shape.get('label'), str):
            raise DataError(f"{name}: shapes[{index}] has no 'label'")
    return data


def _read_image(data: dict, path: Path, name: str) -> Tuple[str, bytes, int, int]:
    """Suffix, content, height and width of the image that a JSON file is about."""
    image_path = data.get('imagePath')
    if not isinstance(image_path, str) or not image_path:
        raise DataError(f"{name}: has no 'imagePath'")
    # LabelMe on Windows writes backslashes.
    file = path.parent / PureWindowsPath(image_path).as_posix()
    if file.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f'{name}: imagePath is {image_path!r}, it takes {", ".join(IMAGE_SUFFIXES)}')
    if file.is_file():
        content = file.read_bytes()
    elif data.get('imageData'):
        try:
            content = base64.b64decode(data['imageData'], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise DataError(f"{name}: 'imageData' is not base64 ({error})") from error
    else:
        raise DataError(f"{name}: no image {image_path!r} beside it, and no 'imageData' in it")
    size = loaded_size(content, f'{name}: image {image_path!r}')
    annotated = tuple(data.get(key) or side for key, side in zip(('imageHeight', 'imageWidth'), size))
    if annotated != size:
        raise DataError(
            f'{name}: annotated at {annotated[0]} x {annotated[1]} (height x width), '
            f'image {image_path!r} is {size[0]} x {size[1]}'
        )
    return file.suffix.lower(), content, *size


def _points(shape: dict, kind: str, where: str) -> np.ndarray:
    """(V, 2) of x, y."""
    try:
        points = np.array(shape.get('points'), dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f'{where}: points of a {kind} are pairs of numbers')
    allowed = dict(rectangle=(2, 4), oriented_rectangle=(4,), circle=(2,), mask=(2,)).get(kind)
    if allowed and len(points) not in allowed:
        raise DataError(f'{where}: a {kind} of {len(points)} points, it takes {" or ".join(map(str, allowed))}')
    if not allowed and len(points) < 3:
        raise DataError(f'{where}: a {kind} of {len(points)} points, it takes 3 or more')
    return points


def _outline(kind: str, points: np.ndarray) -> np.ndarray:
    """The polygon that a shape is, (V, 2)."""
    if kind == 'circle':
        centre, rim = points
        radius = max(float(np.hypot(*(rim - centre))), 1e-3)
        corners = max(12, math.ceil(math.pi * math.sqrt(radius / (2 * CIRCLE_ERROR))))
        angles = np.arange(corners) * 2 * math.pi / corners
        return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if len(points) == 2:  # opposite corners of a rectangle
        (x1, y1), (x2, y2) = points
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    return points


def _pasted_mask(shape: dict, points: np.ndarray, size: Tuple[int, int], where: str) -> np.ndarray:
    """The mask of a whole image that a shape of kind 'mask' gives, (H, W) bool."""
    try:
        content = base64.b64decode(shape['mask'], validate=True)
    except (binascii.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: 'mask' is not a PNG in base64 ({error})") from error
    patch = decode_image(content, cv2.IMREAD_UNCHANGED, f"{where}: 'mask'") > 0
    left, top = np.rint(points.min(axis=0)).astype(int)
    height, width = patch.shape[:2]
    if patch.ndim != 2 or left < 0 or top < 0 or top + height > size[0] or left + width > size[1]:
        raise DataError(
            f"{where}: 'mask' of {height} x {width} at x {left}, y {top} does not lie in its image of "
            f'{size[0]} x {size[1]}'
        )
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = patch
    return mask


def read_sample(path: Path, name: str, classes: Sequence[str], ignore: Sequence[str], report: Report) -> Sample:
    """Read one JSON file and its image, and check them.

    Args:
        path (Path): The JSON file.
        name (str): What messages call it; without its suffix, the name of the image in the dataset.
        classes (Sequence[str]): The labels, in the order of their ids.
        ignore (Sequence[str]): Labels that are left out and not spoken of.
        report (Callable): Called with the description of a shape without an area, which is left out. May raise.

    Returns:
        Sample: The image, as it is, and its objects: polygons where they were drawn as shapes, RLE where one is a mask.

    Raises:
        DataError: Where no right ground truth can be had of it.
    """
    data = _read_json(path, name)
    suffix, content, height, width = _read_image(data, path, name)
    # Objects in the order of their first shapes: (label, group) to outlines and masks
    objects: Dict[Tuple[str, Hashable], Tuple[List[np.ndarray], List[np.ndarray]]] = {}
    for index, shape in enumerate(data['shapes']):
        label, kind = shape['label'], shape.get('shape_type') or 'polygon'
        where = f'{name}: shapes[{index}] ({label!r})'
        if label in ignore:
            continue
        if label not in classes:
            raise DataError(f'{where}: no such class, there are {", ".join(classes)}')
        if kind in ('point', 'points', 'line', 'linestrip'):
            report(f'{where}: a {kind} has no area')
            continue
        if kind not in ('polygon', 'rectangle', 'oriented_rectangle', 'circle', 'mask'):
            raise DataError(f'{where}: shape_type is {kind!r}, which is not known')
        points = _points(shape, kind, where)
        if kind == 'mask':
            mask = _pasted_mask(shape, points, (height, width), where)
            covered, part = int(mask.sum()), (1, mask)
        else:
            polygon = _outline(kind, points)
            covered, part = encode_polygons([polygon], (height, width), 0)['area'], (0, polygon)
        if not covered:
            report(f'{where}: a {kind} that covers no pixel')
            continue
        group = shape.get('group_id')
        parts = objects.setdefault((label, ('alone', index) if group is None else str(group)), ([], []))
        parts[part[0]].append(part[1])

    instances: List[dict] = []
    for (label, _), (polygons, masks) in objects.items():
        category_id = list(classes).index(label) + 1
        if not masks:
            instances.append(encode_polygons(polygons, (height, width), category_id))
            continue
        if polygons:
            drawn = mask_utils.frPyObjects([polygon.ravel().tolist() for polygon in polygons], height, width)
            masks.append(mask_utils.decode(mask_utils.merge(drawn)) > 0)
        instances.append(encode_instance(np.any(masks, axis=0), category_id))
    return Sample(name[: -len('.json')] + suffix, content, height, width, instances)


def _labels(paths: Sequence[Path]) -> List[str]:
    """All labels in use, sorted."""
    labels: Set[str] = set()
    for path in paths:
        try:
            labels.update(shape['label'] for shape in _read_json(path, path.name)['shapes'])
        except DataError:  # named when the sample is read
            continue
    return sorted(labels)


def convert_labelme(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    classes: Optional[Sequence[str]] = None,
    ignore: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    on_error: str = 'skip',
    force: bool = False,
) -> Optional[Converted]:
    """Convert a folder of LabelMe's JSON files, whole or not at all.

    An image whose file holds no shape is an image without objects; one without a file is not annotated, and left out.

    Args:
        source (str | Path): Folder that holds the JSON files, at any depth.
        out_dir (str | Path): Where the dataset shall lie, not in ``source``.
        classes (Sequence[str], optional): The labels, in the order of their ids. By default all that are found, in
            the order of the alphabet.
        ignore (Sequence[str]): Labels to leave out.
        val_fraction (float): Part of the samples that go to ``val``. Defaults to 0.2.
        seed (int): Another seed, another split. Defaults to 0.
        on_error (str): What to do about what is bad. 'skip' leaves out a shape without an area (a point, a line), and
            for any other fault the whole sample, whose ground truth could not be trusted; 'raise' stops at the first.
            Defaults to 'skip'.
        force (bool): Replace a dataset made of other files or with other arguments. Defaults to False.

    Returns:
        Converted | None: None if the dataset was there already.
    """
    source = Path(source)
    check_conversion(source, val_fraction, on_error)
    if source.resolve() in (Path(out_dir).resolve(), *Path(out_dir).resolve().parents):
        raise ConfigError(
            f'out_dir {str(out_dir)!r} lies in source {str(source)!r}, where its JSON files would be read'
        )
    names = check_classes(classes)
    if set(names) & set(ignore):
        raise ConfigError(f'ignore is {tuple(ignore)!r}, and {sorted(set(names) & set(ignore))} are among the classes')
    paths = {path.relative_to(source).as_posix(): path for path in sorted(source.rglob('*.json'))}
    if not paths:
        raise DataError(f'source {str(source)!r} holds no JSON files')
    if not names:
        names = tuple(label for label in _labels(list(paths.values())) if label not in ignore)
    if not names:
        raise ConfigError(f'source {str(source)!r} holds no shapes to take the classes from; name them (--classes)')

    images = [path for path in source.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        source=fingerprint(source, images, contents=paths.values()),
        classes=names,
        ignore=sorted(ignore),
        val_fraction=val_fraction,
        seed=seed,
        on_error=on_error,
    )
    return convert_samples(
        list(paths),
        lambda name, report: read_sample(paths[name], name, names, ignore, report),
        out_dir,
        recipe,
        names,
        dict(description='from LabelMe'),
        val_fraction,
        seed,
        on_error,
        force,
    )
