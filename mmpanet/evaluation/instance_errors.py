# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What goes wrong with single objects: which are found, missed, merged or split, and which predictions are false.

Input are COCO's files: the annotations, and the ``<prefix>.segm.json`` that mmdet's ``CocoMetric`` writes if it has an
``outfile_prefix``.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmpanet.datasets.checks.rle import mask_faults
from mmpanet.datasets.checks.values import is_number
from mmpanet.utils.errors import DataError
from mmpanet.utils.tables import markdown_table

Rle = Dict[str, Any]  # COCO's compressed run-length encoding: size and counts
Instance = Dict[str, Any]  # an object or a prediction: category_id, mask, and more

FOUND, MERGED, SPLIT, INEXACT, MISSED = 'found', 'merged', 'split', 'inexact', 'missed'
OBJECT_KINDS = (FOUND, MERGED, SPLIT, INEXACT, MISSED)
DUPLICATE, PART, BACKGROUND = 'duplicate', 'part or group', 'background'
FALSE_KINDS = (DUPLICATE, PART, BACKGROUND)

FOUND_IOU = 0.5  # the lowest IoU with which a prediction finds an object
COVERED = 0.5  # the lowest share of one mask inside another with which it counts as covered
SMALL_AREA = 32**2  # pixels, as in COCO's evaluation


class ImageErrors(NamedTuple):
    """The objects of one image, and the predictions above a score threshold.

    Attributes:
        object_kinds: The kind of each annotated object (crowd regions are left out). It is found, or merged with
            another one into one prediction, or split into several predictions, or inexact (the best IoU is from 0.25 to
            0.5), or missed.
        found_object: For each prediction, best score first, the index of the object that it finds, or -1.
        false_kinds: For each prediction, the kind of error, or '' if it finds an object.
    """

    object_kinds: List[str]
    found_object: np.ndarray
    false_kinds: List[str]

    @property
    def f1(self) -> float:
        """2 TP / (objects + predictions), or 1 where there are neither."""
        total = len(self.object_kinds) + len(self.found_object)
        return 2 * self.object_kinds.count(FOUND) / total if total else 1.0


def find_errors(objects: Sequence[Instance], predictions: Sequence[Instance]) -> ImageErrors:
    """Match predictions to the objects of one image, and name what does not match.

    As in COCO's evaluation, the prediction with the best score chooses first. It takes the free object of its class
    with the largest mask IoU, if that is at least 0.5.

    Args:
        objects: Dicts with ``category_id`` and ``mask`` (COCO's compressed RLE).
        predictions: The same, sorted by score, best first.
    """
    iou, shared = overlaps([one['mask'] for one in predictions], [one['mask'] for one in objects])
    same_class = np.array(
        [[one['category_id'] == other['category_id'] for other in objects] for one in predictions], dtype=bool
    ).reshape(iou.shape)
    iou = np.where(same_class, iou, 0)
    found_by = np.full(len(objects), -1)
    finds = np.full(len(predictions), -1)
    for index, row in enumerate(iou):
        free = np.where(found_by < 0, row, 0)
        if len(free) and free.max() >= FOUND_IOU:
            finds[index] = free.argmax()
            found_by[finds[index]] = index

    areas = _areas([one['mask'] for one in objects])
    prediction_areas = _areas([one['mask'] for one in predictions])
    # Both are (predictions, objects). An empty mask neither covers anything nor lies in anything.
    touching = shared > 0
    covers = touching & (shared >= COVERED * areas[None])  # the prediction covers the object
    inside = touching & (shared >= COVERED * prediction_areas[:, None])  # the object covers the prediction
    object_kinds = []
    for index in range(len(objects)):
        groups = covers[:, index] & (covers.sum(1) > 1)  # predictions that cover this object and another one
        if found_by[index] >= 0:
            object_kinds.append(FOUND)
        elif groups.any():
            object_kinds.append(MERGED)
        elif (inside[:, index] & (finds < 0)).sum() > 1:
            object_kinds.append(SPLIT)
        elif shared[:, index].any() and iou[:, index].max() >= FOUND_IOU / 2:
            object_kinds.append(INEXACT)
        else:
            object_kinds.append(MISSED)
    false_kinds = []
    for index in range(len(predictions)):
        if finds[index] >= 0:
            false_kinds.append('')
        elif len(objects) and iou[index].max() >= FOUND_IOU:
            false_kinds.append(DUPLICATE)
        elif len(objects) and (inside[index].any() or covers[index].any()):
            false_kinds.append(PART)
        else:
            false_kinds.append(BACKGROUND)
    return ImageErrors(object_kinds, finds, false_kinds)


def overlaps(masks: Sequence[Rle], others: Sequence[Rle]) -> Tuple[np.ndarray, np.ndarray]:
    """IoU and intersection in pixels of all pairs of masks: two arrays, (len(masks), len(others))."""
    if not masks or not others:
        return np.zeros((len(masks), len(others))), np.zeros((len(masks), len(others)))
    iou = coco_mask.iou(masks, others, [0] * len(others))
    # For a crowd region, COCO divides the intersection by the area of the mask alone.
    shares = coco_mask.iou(masks, others, [1] * len(others))
    return iou, np.rint(shares * _areas(masks)[:, None])


def _areas(masks: Sequence[Rle]) -> np.ndarray:
    """Areas in pixels. pycocotools 2.0 with numpy 2 takes at most 255 masks in one call, so each mask has its own."""
    return np.array([float(coco_mask.area(mask)) for mask in masks])


def without_crowd_regions(
    objects: Sequence[Instance], predictions: Sequence[Instance], crowds: Sequence[Instance]
) -> List[Instance]:
    """The predictions that count: those that find an object, and those outside of crowd regions."""
    if not crowds:
        return list(predictions)
    finds = find_errors(objects, predictions).found_object
    return [one for one, index in zip(predictions, finds) if index >= 0 or not _is_in_crowd(one, crowds)]


def _is_in_crowd(prediction: Instance, crowds: Sequence[Instance]) -> bool:
    masks = [crowd['mask'] for crowd in crowds if crowd['category_id'] == prediction['category_id']]
    return bool(masks) and coco_mask.iou([prediction['mask']], masks, [1] * len(masks)).max() >= COVERED


class Annotations:
    """A COCO file of masks, image by image.

    Raises:
        DataError: If the file does not exist, or is not in COCO's format.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = json.loads(Path(file).read_text(encoding='utf-8'))
            self.coco = COCO()
            self.coco.dataset = content
            self.coco.createIndex()
            self.images = {image['id']: image for image in content['images']}
            named = content.get('categories') or [dict(id=one['category_id']) for one in content['annotations']]
            self.categories = {category['id'] for category in named}
            for one in content['annotations']:
                one.setdefault('iscrowd', 0)
                _check_annotation(one)
            if len(self.coco.anns) < len(content['annotations']):
                ids = [one['id'] for one in content['annotations']]
                raise ValueError(f'annotation id {Counter(ids).most_common(1)[0][0]} is there several times')
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f'{file}: no annotations in COCO format ({type(error).__name__}: {error})') from error

    def check_masks(self) -> None:
        """Raise a DataError if an object has no mask, or one that is not in COCO's format."""
        for one in self.coco.dataset['annotations']:
            if not one.get('segmentation'):
                raise DataError(f"{self.file}: annotation {one['id']} has no 'segmentation', and masks are compared")
            image = self.images.get(one['image_id'])
            if image is None:
                continue  # of no image that is compared
            missing = [side for side in ('height', 'width') if not is_number(image.get(side))]
            if missing:
                raise DataError(
                    f'{self.file}: image {one["image_id"]} has no {missing[0]!r}, which the mask of annotation '
                    f'{one["id"]} needs'
                )
            for fault in mask_faults(one['segmentation'], image):
                raise DataError(f"{self.file}: annotation {one['id']}: 'segmentation' {fault}")

    def check_result(self, result: Dict[str, Any]) -> None:
        """Raise a ValueError if an entry of a file of predictions does not belong to these annotations."""
        score, category, size = result['score'], result['category_id'], _size_of(result)
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise ValueError(f'score={score!r} must be a finite number')
        if category not in self.categories:
            raise ValueError(f'category_id={category!r} is not in {self.file}')
        image = self.images.get(result['image_id'], {})
        expected = [image.get('height'), image.get('width')]
        if size is not None and None not in expected and list(size) != expected:
            raise ValueError(
                f'image_id={result["image_id"]}: the mask has the size {list(size)}, and the image {expected} '
                '(height, width)'
            )

    def objects(self, image_id: int) -> List[Instance]:
        """The objects of an image without its crowd regions."""
        return self._instances(image_id, 0)

    def crowds(self, image_id: int) -> List[Instance]:
        """The crowd regions of an image."""
        return self._instances(image_id, 1)

    def _instances(self, image_id: int, crowd: int) -> List[Instance]:
        return [
            dict(category_id=one['category_id'], mask=self.coco.annToRLE(one), area=one['area'], bbox=one['bbox'])
            for one in self.coco.imgToAnns[image_id]
            if one.get('iscrowd', 0) == crowd
        ]


def _size_of(result: Dict[str, Any]) -> Optional[Sequence[int]]:
    """Height and width of the mask of a prediction, or None if it is a box."""
    if 'segmentation' not in result:
        return None
    mask = result['segmentation']
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        raise ValueError(f"segmentation={str(mask)[:60]} must be COCO's RLE, with 'size' and 'counts'")
    return mask['size']


def _check_annotation(annotation: Dict[str, Any]) -> None:
    """Raise a ValueError that names the object and the key that is not in COCO's format."""
    where = f'annotation {annotation.get("id")}'
    for key in ('id', 'image_id', 'category_id', 'area', 'bbox'):
        if key not in annotation:
            raise ValueError(f'{where} has no {key!r}')
    if len(annotation['bbox']) != 4:
        raise ValueError(f'{where}: bbox={annotation["bbox"]} must be x, y, width, height')


def read_predictions(file: Path, annotations: Annotations, score_thr: float) -> Dict[int, List[Instance]]:
    """Predictions by image, with a score of at least the threshold, best first.

    Raises:
        DataError: If the file does not exist, is not a list of masks, or names an image that is not annotated.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        by_image: Dict[int, List[Instance]] = {image_id: [] for image_id in annotations.images}
        for one in content:
            found = by_image[one['image_id']]
            entry = dict(category_id=one['category_id'], mask=one['segmentation'], score=one['score'])
            annotations.check_result(one)
            if one['score'] >= score_thr:
                found.append(entry)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: no list of results in COCO's format ({error})") from error
    except KeyError as error:
        key = error.args[0]
        reason = (
            f'an entry has no {key!r}; it must be the .segm.json that CocoMetric writes'
            if isinstance(key, str)
            else f'image_id {key} is not in {annotations.file}'
        )
        raise DataError(f'{file}: {reason}') from error
    return {image_id: sorted(found, key=lambda one: -one['score']) for image_id, found in by_image.items()}


def are_crowded(objects: Sequence[Instance]) -> List[bool]:
    """Whether the box of each object overlaps the box of another object."""
    boxes = [one['bbox'] for one in objects]
    if not boxes:
        return []
    touching = coco_mask.iou(np.array(boxes, float), np.array(boxes, float), [0] * len(boxes)) > 0
    return [bool(row.sum() > 1) for row in touching]


class ErrorCounts:
    """Counts over a dataset: objects by kind, in total and by size and crowding, and false predictions by kind."""

    GROUPS = ('all', 'small', 'larger', 'crowded', 'alone')

    def __init__(self) -> None:
        self.objects = {group: dict.fromkeys(OBJECT_KINDS, 0) for group in self.GROUPS}
        self.false = dict.fromkeys(FALSE_KINDS, 0)

    def add(self, objects: Sequence[Instance], errors: ImageErrors) -> None:
        for one, crowded, kind in zip(objects, are_crowded(objects), errors.object_kinds):
            for group in ('all', 'small' if one['area'] < SMALL_AREA else 'larger', 'crowded' if crowded else 'alone'):
                self.objects[group][kind] += 1
        for kind in filter(None, errors.false_kinds):
            self.false[kind] += 1

    def as_dict(self) -> Dict[str, Any]:
        """The counts for JSON."""
        return dict(objects=self.objects, false_predictions=self.false)


def error_tables(counts: Dict[str, ErrorCounts]) -> str:
    """Two tables in Markdown: the share of the objects of each kind, and the number of false predictions of each kind.

    Args:
        counts: By name of the model; each model has its columns.
    """
    models = list(counts)
    rows = []
    for group in ErrorCounts.GROUPS:
        number = sum(counts[models[0]].objects[group].values())
        shares = [
            f'{100 * counts[model].objects[group][kind] / number:.1f} %' if number else '-'
            for kind in OBJECT_KINDS
            for model in models
        ]
        rows.append([group, number, *shares])
    headers = ['objects', 'number', *(f'{kind}, {model}' for kind in OBJECT_KINDS for model in models)]
    false_rows = [[kind, *(counts[model].false[kind] for model in models)] for kind in FALSE_KINDS]
    return markdown_table(rows, headers) + '\n' + markdown_table(false_rows, ['false predictions', *models])
