# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a config says about its evaluators, and whether they have the images of their datasets."""

import os
from pathlib import Path, PurePosixPath
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import METRICS
from mmpanet.utils.errors import DataError
from .coco import read_annotation_file
from .config import CocoSource, registered
from .forms import argument_faults, metric_faults
from .values import fits_in_a_line, short, some


class Evaluation(NamedTuple):
    """A ``CocoMetric`` of a config.

    Attributes:
        key (str): Its place in the config.
        ann_file (Path | None): The annotation file; None if it evaluates on what the dataset loads.
        masks (bool): Whether it evaluates masks.
        format_only (bool): Whether it only writes the results.
    """

    key: str
    ann_file: Optional[Path]
    masks: bool
    format_only: bool


def find_evaluations(cfg: Config, split: str) -> List[Evaluation]:
    """Find the evaluators of a split that evaluate by ``CocoMetric`` on files."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    found = []
    for key, node in _walk_evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        kind = registered(node.get('type'), METRICS) if isinstance(node, dict) else None
        if not isinstance(kind, type) or not issubclass(kind, CocoMetric):
            continue
        if getattr(kind, 'compute_metrics', None) is not CocoMetric.compute_metrics:
            continue
        ann_file, metric = node.get('ann_file'), node.get('metric', 'bbox')
        elsewhere = node.get('backend_args') or (isinstance(ann_file, str) and '://' in ann_file)
        if elsewhere or not isinstance(ann_file or '', (str, os.PathLike)):
            continue
        masks = 'segm' in (metric if isinstance(metric, (list, tuple)) else [metric])
        found.append(Evaluation(key, Path(ann_file) if ann_file else None, masks, bool(node.get('format_only'))))
    return found


def evaluator_faults(cfg: Config, split: str) -> Iterator[str]:
    """Name evaluators whose annotation file is not there, and metrics that the model does not fit.

    mmengine would read the file, and miss the masks, after the first epoch.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    for key, node in _walk_evaluators(cfg.get(f'{split}_evaluator'), f'{split}_evaluator'):
        kind = registered(node.get('type'), METRICS) if isinstance(node, dict) else None
        if kind is None:
            held = f'.type={short(node.get("type"))}' if isinstance(node, dict) else f'={short(node)}'
            yield f'{key}{held} is no metric that is registered; it takes a dict with type, such as "CocoMetric"'
            continue
        ann_file = node.get('ann_file')
        if ann_file is not None and not isinstance(ann_file, (str, os.PathLike)):
            yield f'{key}.ann_file={short(ann_file)} is a {type(ann_file).__name__}, it takes one path'
        elif not fits_in_a_line(str(ann_file or '')):
            yield f'{key}.ann_file={short(ann_file)} holds a control character, it takes a path without'
        elif ann_file and '://' not in str(ann_file) and not node.get('backend_args') and not os.path.isfile(ann_file):
            yield f'{key}.ann_file={ann_file!r}: no such file'
        yield from argument_faults(node, key, kind)
        if kind is CocoMetric and not node.get('format_only'):
            yield from metric_faults(node.get('metric', 'bbox'), f'{key}.metric', cfg.get('model'))


def _walk_evaluators(node: Any, key: str) -> Iterator[Tuple[str, Any]]:
    """The configs of metrics, and their places."""
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _walk_evaluators(item, f'{key}[{i}]')
    elif isinstance(node, dict) and 'metrics' in node:  # an evaluator of several metrics
        yield from _walk_evaluators(node['metrics'], f'{key}.metrics')
    elif node is not None:
        yield key, node


def other_image_faults(sources: Sequence[CocoSource], evaluations: Sequence[Evaluation]) -> Iterator[str]:
    """Compare the images of a split's datasets with those of its evaluators that read a file of their own.

    Results and ground truth are matched by the id of the image. pycocotools stops if a result is of an image that the
    ground truth lacks. It counts the objects of an image without results as not found.

    Nothing is compared where several evaluators may belong to several datasets.
    """
    compared = [one for one in evaluations if one.ann_file is not None and not one.format_only]
    files = {os.path.realpath(source.ann_file) for source in sources}
    if not sources or (len(sources) > 1 and len(evaluations) > 1):
        return
    for evaluation in compared:
        assert evaluation.ann_file is not None
        if files == {os.path.realpath(evaluation.ann_file)}:
            continue
        try:
            counted, with_objects = _read_images(evaluation.ann_file)
            predicted: Dict[Any, str] = {}
            for source in sources:
                predicted.update(_read_images(source.ann_file)[0])
        except DataError:
            continue  # the check of the file says so
        where = f'{evaluation.key}.ann_file={str(evaluation.ann_file)!r}'
        data = ', '.join(f'{source.key} ({source.ann_file})' for source in sources)
        yield from _faults(where, data, counted, with_objects, predicted)


def _faults(
    where: str, data: str, counted: Dict[Any, str], with_objects: Set[Any], predicted: Dict[Any, str]
) -> Iterator[str]:
    lacking = [number for number in predicted if number not in counted]
    unseen = [number for number in counted if number not in predicted and number in with_objects]
    renamed = [number for number, name in predicted.items() if counted.get(number, name) != name]
    if lacking:
        yield f'{where} has no image with the id {some(lacking)}, as {data} has; it takes the same images'
    elif unseen:
        yield (
            f'{where} has objects in the images with the id {some(unseen)}, which {data} has not, and the evaluation '
            'would count them as not found; it takes the same images'
        )
    if renamed:
        first = renamed[0]
        yield (
            f'{where} calls image {short(first)} {counted[first]!r}, and {data} calls it {predicted[first]!r}; it '
            'takes the same images'
        )


def _read_images(ann_file: Path) -> Tuple[Dict[Any, str], Set[Any]]:
    """Names of the images by id, without their folders, and the ids of images with objects."""
    data = read_annotation_file(ann_file, objects=False)
    images = [entry for entry in data['images'] if isinstance(entry, dict)]
    objects = [entry for entry in data.get('annotations', ()) if isinstance(entry, dict)]
    return (
        {entry['id']: PurePosixPath(str(entry.get('file_name'))).name for entry in images if _is_id(entry.get('id'))},
        {entry['image_id'] for entry in objects if _is_id(entry.get('image_id'))},
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, float, str))
