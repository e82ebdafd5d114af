# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What goes wrong with single objects: which are found, missed, merged or split, and which predictions are false.

From COCO's files: annotations, and the ``<prefix>.segm.json`` that mmdet's ``CocoMetric`` writes, given an
``outfile_prefix``.
"""

import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

FOUND, MERGED, SPLIT, INEXACT, MISSED = 'found', 'merged', 'split', 'inexact', 'missed'
OBJECT_KINDS = (FOUND, MERGED, SPLIT, INEXACT, MISSED)
DUPLICATE, PART, BACKGROUND = 'duplicate', 'part or group', 'background'
FALSE_KINDS = (DUPLICATE, PART, BACKGROUND)

IOU_THR = 0.5  # to be found
COVERED = 0.5  # the share of an object, or of a prediction, that lies in the other
SMALL_AREA = 32**2  # COCO's, in pixels


class ResultError(ValueError):
    """A file that is not what it should be; the message names it."""


class ImageErrors(NamedTuple):
    """One image, and the predictions above a threshold.

    Attributes:
        objects: The kind of each annotated object (not of crowd regions): found; or merged with another one into one
            prediction; or split into several; or inexact, with an IoU below the threshold; or missed.
        predictions: For each prediction, best score first, the index of the object that it finds, or -1.
        false_kinds: For each prediction the kind of error, or '' if it finds an object.
    """

    objects: List[str]
    predictions: np.ndarray
    false_kinds: List[str]

    @property
    def f1(self) -> float:
        """2 TP / (objects + predictions); 1 where there are neither."""
        total = len(self.objects) + len(self.predictions)
        return 2 * self.objects.count(FOUND) / total if total else 1.0


def compare(objects: Sequence[dict], predictions: Sequence[dict]) -> ImageErrors:
    """Match predictions to the objects of one image, and name what did not fit.

    As in COCO's evaluation, the prediction with the best score chooses first, among the objects of its class the one
    with the largest mask IoU, from 0.5. Predictions that lie in a crowd region are left out.

    Args:
        objects: Of ``category_id`` and ``mask`` (COCO's compressed RLE).
        predictions: The same, sorted by falling score.
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
        if len(free) and free.max() >= IOU_THR:
            finds[index] = free.argmax()
            found_by[finds[index]] = index

    areas = _areas([one['mask'] for one in objects])
    prediction_areas = _areas([one['mask'] for one in predictions])
    covers = shared >= COVERED * areas[None]  # (predictions, objects): most of the object is in the prediction
    inside = shared >= COVERED * prediction_areas[:, None]  # most of the prediction is in the object
    kinds = []
    for index in range(len(objects)):
        groups = covers[:, index] & (covers.sum(1) > 1)
        if found_by[index] >= 0:
            kinds.append(FOUND)
        elif groups.any():
            kinds.append(MERGED)
        elif (inside[:, index] & (finds < 0)).sum() > 1:
            kinds.append(SPLIT)
        elif shared[:, index].any() and iou[:, index].max() >= IOU_THR / 2:
            kinds.append(INEXACT)
        else:
            kinds.append(MISSED)
    false_kinds = []
    for index in range(len(predictions)):
        if finds[index] >= 0:
            false_kinds.append('')
        elif len(objects) and iou[index].max() >= IOU_THR:
            false_kinds.append(DUPLICATE)
        elif len(objects) and (inside[index].any() or covers[index].any()):
            false_kinds.append(PART)
        else:
            false_kinds.append(BACKGROUND)
    return ImageErrors(kinds, finds, false_kinds)


def overlaps(masks: Sequence[dict], others: Sequence[dict]) -> tuple:
    """IoU, and intersection in pixels, of each mask with each other one: two arrays (masks, others)."""
    if not masks or not others:
        return np.zeros((len(masks), len(others))), np.zeros((len(masks), len(others)))
    iou = coco_mask.iou(masks, others, [0] * len(others))
    # With a crowd region COCO divides by the area of the mask alone.
    shares = coco_mask.iou(masks, others, [1] * len(others))
    return iou, np.rint(shares * _areas(masks)[:, None])


def _areas(masks: Sequence[dict]) -> np.ndarray:
    """In pixels; one by one, as pycocotools 2.0 with numpy 2 takes no more than 255 masks at a time."""
    return np.array([float(coco_mask.area(mask)) for mask in masks])


def outside_crowds(objects: Sequence[dict], predictions: Sequence[dict], crowds: Sequence[dict]) -> List[dict]:
    """The predictions but those that find no object and lie in a crowd region, which are neither right nor wrong."""
    if not crowds:
        return list(predictions)
    finds = compare(objects, predictions).predictions
    return [one for one, index in zip(predictions, finds) if index >= 0 or not _is_in(one, crowds)]


def _is_in(prediction: dict, crowds: Sequence[dict]) -> bool:
    masks = [crowd['mask'] for crowd in crowds if crowd['category_id'] == prediction['category_id']]
    return bool(masks) and coco_mask.iou([prediction['mask']], masks, [1] * len(masks)).max() >= COVERED


class Annotations:
    """A COCO file of masks, image by image.

    Raises:
        ResultError: If it is not there, or not COCO's format.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = json.loads(Path(file).read_text())
            self.coco = COCO()
            self.coco.dataset = content
            self.coco.createIndex()
            self.images = {image['id']: image for image in content['images']}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultError(f'{file}: no annotations in COCO format ({type(error).__name__}: {error})') from error

    def objects(self, image_id: int) -> List[dict]:
        return self._instances(image_id, 0)

    def crowds(self, image_id: int) -> List[dict]:
        return self._instances(image_id, 1)

    def _instances(self, image_id: int, crowd: int) -> List[dict]:
        return [
            dict(category_id=one['category_id'], mask=self.coco.annToRLE(one), area=one['area'], bbox=one['bbox'])
            for one in self.coco.imgToAnns[image_id]
            if one.get('iscrowd', 0) == crowd
        ]


def read_predictions(file: Path, annotations: Annotations, score_thr: float) -> Dict[int, List[dict]]:
    """Predictions by image, above a threshold, best first.

    Raises:
        ResultError: If the file is not there, no list of masks, or of other images.
    """
    try:
        content = json.loads(Path(file).read_text())
        by_image: Dict[int, List[dict]] = {image_id: [] for image_id in annotations.images}
        for one in content:
            if one['score'] >= score_thr:
                by_image[one['image_id']].append(
                    dict(category_id=one['category_id'], mask=one['segmentation'], score=one['score'])
                )
    except (OSError, ValueError, TypeError) as error:
        raise ResultError(f"{file}: no list of results in COCO's format ({error})") from error
    except KeyError as error:
        key = error.args[0]
        reason = (
            f'an entry has no {key!r}; it must be the .segm.json that CocoMetric writes'
            if isinstance(key, str)
            else f'image_id {key} is not in {annotations.file}'
        )
        raise ResultError(f'{file}: {reason}') from error
    return {image_id: sorted(found, key=lambda one: -one['score']) for image_id, found in by_image.items()}


def is_crowded(objects: Sequence[dict]) -> List[bool]:
    """Whether the box of each object overlaps another one's."""
    boxes = [one['bbox'] for one in objects]
    if not boxes:
        return []
    touching = coco_mask.iou(np.array(boxes, float), np.array(boxes, float), [0] * len(boxes)) > 0
    return [bool(row.sum() > 1) for row in touching]


class Tally:
    """Counts over a data set: kinds of objects, in all and by size and crowding, and kinds of false predictions."""

    GROUPS = ('all', 'small', 'larger', 'crowded', 'alone')

    def __init__(self) -> None:
        self.objects = {group: dict.fromkeys(OBJECT_KINDS, 0) for group in self.GROUPS}
        self.false = dict.fromkeys(FALSE_KINDS, 0)

    def add(self, objects: Sequence[dict], errors: ImageErrors) -> None:
        for one, crowded, kind in zip(objects, is_crowded(objects), errors.objects):
            for group in ('all', 'small' if one['area'] < SMALL_AREA else 'larger', 'crowded' if crowded else 'alone'):
                self.objects[group][kind] += 1
        for kind in filter(None, errors.false_kinds):
            self.false[kind] += 1

    def as_dict(self) -> dict:
        return dict(objects=self.objects, false_predictions=self.false)


def markdown(tallies: Dict[str, Tally]) -> str:
    """Two tables: shares of the objects by kind, and false predictions by kind; a column a model."""
    names = list(tallies)
    lines = [['objects', 'number', *(f'{kind}, {name}' for kind in OBJECT_KINDS for name in names)]]
    lines.append(['---'] * len(lines[0]))
    for group in Tally.GROUPS:
        number = sum(tallies[names[0]].objects[group].values())
        cells = [group, str(number)]
        for kind in OBJECT_KINDS:
            cells += [f'{100 * tallies[name].objects[group][kind] / number:.1f} %' if number else '-' for name in names]
        lines.append(cells)
    second = [['false predictions', *names], ['---'] * (1 + len(names))]
    second += [[kind, *(str(tallies[name].false[kind]) for name in names)] for kind in FALSE_KINDS]
    return '\n'.join(''.join('| ' + ' | '.join(line) + ' |\n' for line in table) for table in (lines, second))
