# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What goes wrong with single objects: which are found, missed, merged or split, and which predictions are false."""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from pycocotools import mask as coco_mask

from mmpanet.utils.tables import markdown_table
from .annotations import Instance, Rle

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
