# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""LabelMe's annotations to COCO format.

The source is a folder of LabelMe's JSON files, at any depth, one per image. The images lie beside them, or in them
(``imageData``). Shapes with the same label and the same ``group_id`` are one object, as in LabelMe.
"""

import math
from pathlib import Path
from typing import Dict, Hashable, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from mmpanet.datasets.coco_writer import encode_instance, encode_polygons
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.images import decode_image
from mmpanet.utils.media import list_files
from ..checks.rle import is_far_outside
from .conversion import (
    Converted,
    Report,
    Sample,
    check_classes,
    check_settings,
    check_source,
    convert_samples,
    fingerprint,
)
from .labelme_files import decode_base64, read_image, read_json
from .labelme_survey import Survey

GENERATOR = 'mmpanet.datasets.converters.labelme'
VERSION = 3
CIRCLE_ERROR = 0.1  # largest distance in pixels between a circle and its polygon
FARTHEST = 10  # distance of a point from its image, in heights and widths of the image
WITHOUT_AREA = ('point', 'points', 'line', 'linestrip')
IGNORED_LABEL = '__ignore__'  # LabelMe's own converters leave out what is called so
KINDS = ('polygon', 'rectangle', 'oriented_rectangle', 'circle', 'mask')


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
    """The outline of a shape as a polygon, (V, 2)."""
    if kind == 'circle':
        center, rim = points
        radius = max(float(np.hypot(*(rim - center))), 1e-3)
        corners = max(12, math.ceil(math.pi * math.sqrt(radius / (2 * CIRCLE_ERROR))))
        angles = np.arange(corners) * 2 * math.pi / corners
        return center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if len(points) == 2:  # opposite corners of a rectangle
        (x1, y1), (x2, y2) = points
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    return points


def _pasted_mask(shape: dict, points: np.ndarray, size: Tuple[int, int], where: str) -> np.ndarray:
    """The mask of a shape of kind 'mask', (H, W) bool in the size of the image."""
    if not isinstance(shape.get('mask'), str):
        raise DataError(f"{where}: 'mask' is not a PNG in base64")
    content = decode_base64(shape['mask'], f"{where}: 'mask'")
    patch = decode_image(content, cv2.IMREAD_UNCHANGED, f"{where}: 'mask'") > 0
    left, top = np.rint(points.min(axis=0)).astype(int)
    height, width = patch.shape[:2]
    if patch.ndim != 2:
        raise DataError(f"{where}: 'mask' has {patch.shape[2]} channels, it takes a PNG with one")
    if left < 0 or top < 0 or top + height > size[0] or left + width > size[1]:
        raise DataError(
            f"{where}: 'mask' of {height} x {width} at x {left}, y {top} does not lie in its image of "
            f'{size[0]} x {size[1]}'
        )
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = patch
    return mask


def _read_shape(shape: dict, size: Tuple[int, int], where: str, report: Report) -> Optional[np.ndarray]:
    """A shape as its outline (V, 2), or as a mask, (H, W) bool; None for one without an area, which is reported."""
    kind = shape.get('shape_type') or 'polygon'
    if kind in WITHOUT_AREA:
        report(f'{where}: a {kind} has no area')
        return None
    if kind not in KINDS:
        raise DataError(f'{where}: shape_type is {kind!r}, which is not known')
    points = _points(shape, kind, where)
    if np.abs(points).max() > FARTHEST * sum(size):  # pycocotools would walk along every edge
        raise DataError(
            f'{where}: a point of it lies far beyond its image of {size[0]} x {size[1]} (height x width): '
            f'{points[np.abs(points).max(axis=1).argmax()].tolist()}'
        )
    if kind == 'mask':
        part = _pasted_mask(shape, points, size, where)
        covered = int(part.sum())
    else:
        part = _outline(kind, points)
        covered = encode_polygons([part], size, 0)['area']
    if not covered:
        report(f'{where}: a {kind} that covers no pixel')
        return None
    return part


def _instance(parts: Sequence[np.ndarray], size: Tuple[int, int], category_id: int) -> dict:
    """The annotation of an object: polygons, or RLE if one of its parts is a mask or goes far beyond the image."""
    masks = [part for part in parts if part.dtype == bool]
    polygons = [part for part in parts if part.dtype != bool]
    outlines = [polygon.ravel().tolist() for polygon in polygons]
    # Training refuses polygons that go far beyond their image; as a mask the object ends at the border.
    is_far = any(is_far_outside(outline, dict(height=size[0], width=size[1])) for outline in outlines)
    if not masks and not is_far:
        return encode_polygons(polygons, size, category_id)
    if polygons:
        drawn = mask_utils.frPyObjects(outlines, *size)
        masks.append(mask_utils.decode(mask_utils.merge(drawn)) > 0)
    return encode_instance(np.any(masks, axis=0), category_id)


def read_sample(
    path: Path, name: str, classes: Sequence[str], ignore: Sequence[str], encoding: Optional[str], report: Report
) -> Sample:
    """Read one JSON file and its image, and check them.

    Args:
        path (Path): The JSON file.
        name (str): What messages call it. Without suffix it is the name of the image in the dataset.
        classes (Sequence[str]): The labels, in the order of their ids.
        ignore (Sequence[str]): Labels to leave out.
        encoding (str, optional): The encoding of the file, see :func:`.labelme_files.read_json`.
        report (Callable): Called with the description of a shape without an area, which is left out alone.

    Returns:
        Sample: The image as it is, and its objects: polygons, or RLE if one of the shapes is a mask or goes far
        beyond the image.

    Raises:
        DataError: If the file or its image has a fault.
    """
    data = read_json(path, name, encoding).data
    suffix, content, height, width = read_image(data, path, name)
    size = (height, width)
    objects: Dict[Tuple[str, Hashable], List[np.ndarray]] = {}  # by label and group, in the order of their first shapes
    for index, shape in enumerate(data['shapes']):
        label = shape['label']
        where = f'{name}: shapes[{index}] ({label!r})'
        if label in ignore:
            continue
        if label not in classes:
            raise DataError(f'{where}: no such class, there are {", ".join(classes)}')
        part = _read_shape(shape, size, where, report)
        if part is not None:
            group = shape.get('group_id')
            objects.setdefault((label, ('alone', index) if group is None else str(group)), []).append(part)
    instances = [_instance(parts, size, list(classes).index(label) + 1) for (label, _), parts in objects.items()]
    return Sample(name[: -len('.json')] + suffix, content, height, width, instances)


def convert_labelme(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    classes: Optional[Sequence[str]] = None,
    ignore: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    on_error: str = 'skip',
    force: bool = False,
    encoding: Optional[str] = None,
) -> Optional[Converted]:
    """Convert a folder of LabelMe's JSON files.

    An image whose file holds no shape is an image without objects. An image without a file is not annotated, and is
    left out.

    Args:
        source (str | Path): Folder of the JSON files, at any depth.
        out_dir (str | Path): The folder of the dataset, not in ``source``. It is complete or is not there.
        classes (Sequence[str], optional): The labels, in the order of their ids. By default all labels that are found,
            sorted.
        ignore (Sequence[str]): Labels to leave out, besides LabelMe's own ``__ignore__``.
        val_fraction (float): Fraction of the images for ``val``. Defaults to 0.2.
        seed (int): Seed of the split. Defaults to 0.
        on_error (str): 'skip' leaves out a shape without an area (a point, a line), and for any other fault the whole
            sample, and says so. 'raise' stops at the first fault. Defaults to 'skip'.
        force (bool): Replace a dataset made from other files or with other arguments. Defaults to False.
        encoding (str, optional): The encoding of the JSON files. By default UTF-8, and GB18030 for a file that is not
            UTF-8.

    Returns:
        Converted | None: None if the same dataset is there already.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
        DataError: If nothing can be converted, or at the first fault with ``on_error='raise'``.
    """
    source = Path(source)
    check_source(source, Path(out_dir), 'source')
    check_settings(val_fraction, on_error)
    names = check_classes(classes)
    if set(names) & set(ignore):
        raise ConfigError(f'ignore is {tuple(ignore)!r}, and {sorted(set(names) & set(ignore))} are among the classes')
    paths = {path.relative_to(source).as_posix(): path for path in list_files(source, ('.json',))}
    if not paths:
        raise DataError(f'source {str(source)!r} holds no JSON files')
    survey = Survey(source, paths, encoding)
    survey.check_out_dir(Path(out_dir))
    if IGNORED_LABEL in survey.labels and IGNORED_LABEL not in (*names, *ignore):
        ignore = (*ignore, IGNORED_LABEL)
    if not names:
        names = tuple(label for label in sorted(survey.labels) if label not in ignore)
    if not names:
        if survey.faults:
            raise DataError(
                f'source {str(source)!r}: {len(survey.faults)} of {len(paths)} JSON files cannot be read, and there is '
                f'no shape to take the classes from; the first fault: {survey.faults[0]}'
            )
        raise DataError(f'source {str(source)!r} holds no shapes to take the classes from; name them (--classes)')

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        source=fingerprint(source, [*survey.images, *survey.elsewhere, *paths.values()]),
        classes=names,
        ignore=sorted(ignore),
        encoding=encoding,
    )
    return convert_samples(
        list(paths),
        lambda name, report: read_sample(paths[name], name, names, ignore, encoding, report),
        out_dir,
        recipe,
        names,
        dict(description='from LabelMe'),
        val_fraction,
        seed,
        on_error,
        force,
        lambda: survey.notes(ignore, classes is None),
    )
