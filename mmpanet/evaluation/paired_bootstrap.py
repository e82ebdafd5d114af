# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""How sure the difference in AP of two models is: a paired bootstrap over the images of one annotation file.

The images are drawn with replacement, the same ones for both models, and COCO's AP of both is computed on each draw.
Predictions are matched to objects only once: a match does not depend on other images, so an image that is drawn n times
counts n times in the accumulation of ``COCOeval``. If a model was trained with several seeds, these are drawn too.
"""

import contextlib
import io
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmpanet.utils.errors import DataError
from mmpanet.utils.tables import text_table
from .annotations import Annotations
from .coco_metrics import AP_KINDS
from .counted_categories import counted_categories

CONFIDENCE = 0.95
AREAS = {'mAP_s': 'small', 'mAP_m': 'medium', 'mAP_l': 'large'}
IOUS = {'mAP_50': 0.5, 'mAP_75': 0.75}
# The numbers of detections per image that count: for AP itself as in COCOeval, for the others as in mmdet's CocoMetric.
DETECTIONS_OF_AP, DETECTIONS = 100, 1000


class PairedDifference(NamedTuple):
    """One metric of two models, as fractions, and the bootstrap of the difference."""

    metric: str  # as in AP_KINDS
    first: float
    second: float
    low: float  # the 95 % interval of second - first
    high: float
    p_value: float  # two-sided: (k + 1) / (n + 1) twice, if k of n draws contradict the sign of the difference

    @property
    def difference(self) -> float:
        return self.second - self.first


def paired_bootstrap(
    annotation_file: Path,
    first: Sequence[Path],
    second: Sequence[Path],
    resamples: int = 1000,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> List[PairedDifference]:
    """Compare the AP of two models, each trained with one seed or with several.

    A draw takes images with replacement, the same ones for all files. Of a model with several files it also takes files
    with replacement, as many as there are, independently of the other model. AP is the mean over the files. With two or
    three seeds such an interval is too narrow, because the drawn files vary less than other seeds would.

    Args:
        annotation_file: In COCO's format.
        first: The prediction files of the first model, one per seed of its training: ``.segm.json`` files (mask AP) or
            ``.bbox.json`` files (box AP) of mmdet's ``CocoMetric``.
        second: Those of the second model.
        resamples: How many draws.
        seed: Of the draws.
        classes: The categories that count, by name: those of the models. By default all of the file count.

    Returns:
        One entry per metric; metrics without objects (of that size), in the file or in all draws, are left out.

    Raises:
        DataError: If a file does not exist or has another format, if the files are of different kinds, if there is no
            such class, or if no file has a detection of a category that has objects. MMDetection counts the classes of
            the dataset alone, so a category that the models do not know would lower their AP here.
    """
    annotations = Annotations(annotation_file)
    image_ids = sorted(annotations.images)
    predictions = {file: _read_predictions(file, annotations) for file in (*first, *second)}
    kinds = {file: 'segm' if 'segmentation' in found[0] else 'bbox' for file, found in predictions.items() if found}
    if not kinds:
        raise DataError(f'{first[0]}: no detections, and none in the other files')
    example, kind = next(iter(kinds.items()))
    for file, other in kinds.items():
        if other != kind:
            raise DataError(f'{example} and {file} must both hold masks or both hold boxes, not {kind} and {other}')
    if kind == 'segm':
        annotations.check_masks()
    found = {one['category_id'] for predicted in predictions.values() for one in predicted}
    categories = counted_categories(annotations, classes, found)
    if 0 in annotations.coco.anns:
        raise DataError(
            f'{annotation_file}: an annotation has the id 0, which COCO evaluates as never found; count from 1'
        )
    matched = {
        file: _match(annotations.coco, found, image_ids, categories, kind) for file, found in predictions.items()
    }
    models = [[matched[file] for file in files] for files in (first, second)]
    generator = np.random.default_rng(seed)
    everything = np.ones(len(image_ids), int)
    values = [_mean_average_precisions(model, range(len(model)), everything) for model in models]
    draws = []
    for _ in range(resamples):
        counts = np.bincount(generator.integers(len(image_ids), size=len(image_ids)), minlength=len(image_ids))
        drawn = [generator.integers(len(model), size=len(model)).tolist() for model in models]
        before, after = (_mean_average_precisions(model, seeds, counts) for model, seeds in zip(models, drawn))
        draws.append([after[metric] - before[metric] for metric in AP_KINDS])
    results = []
    for metric, differences in zip(AP_KINDS, np.array(draws).T):
        if np.isnan(values[0][metric]):
            continue
        differences = differences[~np.isnan(differences)]  # a draw may have no object of a size
        if not len(differences):
            continue
        low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        contradicting = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
        p_value = min(1.0, 2 * (contradicting + 1) / (len(differences) + 1))
        results.append(
            PairedDifference(metric, values[0][metric], values[1][metric], float(low), float(high), float(p_value))
        )
    return results


def bootstrap_table(results: Sequence[PairedDifference], names: Sequence[str]) -> str:
    """A table for a terminal, with AP in percent."""
    rows = [
        [
            AP_KINDS[one.metric],
            f'{100 * one.first:.1f}',
            f'{100 * one.second:.1f}',
            f'{100 * one.difference:+.1f} ({100 * one.low:+.1f} to {100 * one.high:+.1f})',
            f'{one.p_value:.3f}',
        ]
        for one in results
    ]
    return text_table(rows, ['', *names, 'difference (95 % interval)', 'p'])


class _Matches(NamedTuple):
    """The detections of one category, matched to the objects of one range of areas, for T IoU thresholds."""

    images: List[np.ndarray]  # T arrays: the image of each detection that is not ignored, best score first
    true: List[np.ndarray]  # T arrays: the positions in them of the detections that match an object
    objects: np.ndarray  # the number of objects in each image


Model = Dict[str, List[_Matches]]  # by range of areas, and 'mAP'; one entry per category


def _read_predictions(file: Path, annotations: Annotations) -> List[Dict[str, Any]]:
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        if not isinstance(content, list):
            raise TypeError(f'{type(content).__name__} in place of a list')
        keys = ('image_id', 'category_id', 'score')
        key = 'segmentation' if content and 'segmentation' in content[0] else 'bbox'
        found = [{name: one[name] for name in (*keys, key)} for one in content]
        if key == 'bbox' and any(len(one[key]) != 4 for one in found):
            raise ValueError('a bbox must be x, y, width, height')
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise DataError(
            f"{file}: no list of results in COCO's format, as CocoMetric writes it ({type(error).__name__}: {error})"
        ) from error
    try:
        for one in found:
            annotations.check_result(one)
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f'{file}: {error}') from error
    return found


def _match(
    truth: COCO, predictions: List[Dict[str, Any]], image_ids: List[int], categories: List[int], kind: str
) -> Model:
    """Match predictions to objects with COCO's own evaluation."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        evaluation = COCOeval(truth, _detections(truth, predictions), kind)
        evaluation.params.imgIds = image_ids
        evaluation.params.catIds = categories
        evaluation.params.maxDets = [DETECTIONS]
        evaluation.evaluate()
    parameters = evaluation.params
    images, areas = len(image_ids), parameters.areaRngLbl
    model: Model = {name: [] for name in ('mAP', *areas)}
    for category in range(len(parameters.catIds)):
        for area_index, area in enumerate(areas):
            start = (category * len(areas) + area_index) * images  # by category, then area, then image
            found = evaluation.evalImgs[start : start + images]
            model[area].append(_concatenate(found, DETECTIONS))
            if area == 'all':
                model['mAP'].append(_concatenate(found, DETECTIONS_OF_AP))
    return model


def _detections(truth: COCO, predictions: List[Dict[str, Any]]) -> COCO:
    if predictions:
        return truth.loadRes(predictions)
    empty = COCO()  # loadRes fails without detections
    empty.dataset = {**truth.dataset, 'annotations': []}
    empty.createIndex()
    return empty


def _concatenate(images: Sequence[Any], max_detections: int) -> _Matches:
    """Join the results of ``COCOeval`` for each image, as its accumulation does."""
    num_thresholds = len(COCOeval(iouType='bbox').params.iouThrs)
    objects = np.zeros(len(images), int)
    scores, image = [np.zeros(0)], [np.zeros(0, int)]
    matched = [np.zeros((num_thresholds, 0), bool)]
    ignored = [np.zeros((num_thresholds, 0), bool)]
    for index, one in enumerate(images):
        if one is None:  # neither objects nor detections
            continue
        scores.append(np.asarray(one['dtScores'])[:max_detections])
        image.append(np.full(len(scores[-1]), index))
        matched.append(one['dtMatches'][:, :max_detections] != 0)  # ids of annotations, which may be negative
        ignored.append(one['dtIgnore'][:, :max_detections] > 0)
        objects[index] = np.count_nonzero(np.asarray(one['gtIgnore']) == 0)
    order = np.argsort(-np.concatenate(scores), kind='mergesort')  # as COCOeval sorts
    image_of = np.concatenate(image)[order]
    hits, left_out = (np.concatenate(parts, axis=1)[:, order] for parts in (matched, ignored))
    return _Matches(
        [image_of[~out] for out in left_out], [np.flatnonzero(hit[~out]) for hit, out in zip(hits, left_out)], objects
    )


def _mean_average_precisions(model: Sequence[Model], seeds: Sequence[int], counts: np.ndarray) -> Dict[str, float]:
    """The mean of :func:`_average_precisions` over some seeds of a model; a seed may be among them several times."""
    values = {seed: _average_precisions(model[seed], counts) for seed in set(seeds)}
    return {metric: float(np.mean([values[seed][metric] for seed in seeds])) for metric in AP_KINDS}


def _average_precisions(model: Model, counts: np.ndarray) -> Dict[str, float]:
    """Every metric of AP_KINDS, if image i counts ``counts[i]`` times. NaN where there are no objects."""
    parameters = COCOeval(iouType='bbox').params
    everywhere = _mean_over_categories(model['all'], counts, parameters.recThrs)
    values = {'mAP': float(_mean_over_categories(model['mAP'], counts, parameters.recThrs).mean())}
    for metric, iou in IOUS.items():
        values[metric] = float(everywhere[np.isclose(parameters.iouThrs, iou)][0])
    for metric, area in AREAS.items():
        values[metric] = float(_mean_over_categories(model[area], counts, parameters.recThrs).mean())
    return values


def _mean_over_categories(categories: Sequence[_Matches], counts: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """AP of each IoU threshold, (T,), over the categories that have objects."""
    found = [_average_precision(one, counts, recalls) for one in categories if counts @ one.objects]
    return np.mean(found, axis=0) if found else np.full(len(categories[0].true), np.nan)


def _average_precision(matches: _Matches, counts: np.ndarray, recalls: np.ndarray) -> np.ndarray:
    """The accumulation of ``COCOeval`` for one category: AP of each IoU threshold, (T,).

    Precision has its maxima at detections that match an object, so the others are only counted.
    """
    objects = counts @ matches.objects
    values = []
    for image, true_positions in zip(matches.images, matches.true):
        weights = counts[image]
        detections = np.cumsum(weights)[true_positions]
        true = np.cumsum(weights[true_positions])
        precision = true / (detections + np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or a higher one
        precision = np.append(precision, 0)  # for a recall that is not reached
        values.append(precision[np.searchsorted(true / objects, recalls)].mean())
    return np.array(values)
