# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""All checks together: of the datasets that a config uses, and of one annotation file."""

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from mmengine.config import Config

from mmpanet.utils.errors import DataError
from .coco import check_categories, check_images, read_annotation_file, shared_files
from .config import CocoSource, class_names, find_datasets, form_faults, head_faults, order_faults
from .evaluators import Evaluation, evaluator_faults, find_evaluations, other_image_faults
from .images import Loading, image_faults
from .objects import ObjectFindings, Reading, check_objects
from .values import some


class Findings(NamedTuple):
    """What a check finds.

    Attributes:
        faults (list[str]): What must be fixed.
        left_out (list[str]): What MMDetection passes over without a message, and how much of it, one line for each
            reason. It need not be wrong.
    """

    faults: List[str]
    left_out: List[str]


def check_datasets(cfg: Config, *splits: str, decode_images: bool = False) -> List[str]:
    """Check the data that a config trains, validates or tests on.

    Datasets that are not read by MMDetection's ``CocoDataset``, or not from a file system, are not checked.

    Args:
        cfg (Config): The config.
        splits (str): Any of 'train', 'val' and 'test'.
        decode_images (bool): Decode every image. By default the headers of up to 1000 images of each dataset are read.

    Returns:
        list[str]: What MMDetection passes over without a message, though nothing need be wrong with it.

    Raises:
        DataError: If anything must be fixed. Its ``faults`` list all of it.
    """
    faults: List[str] = []
    left_out: List[str] = []
    seen: Dict[Any, Findings] = {}
    for split in splits:
        faults += form_faults(cfg, split)
        faults += evaluator_faults(cfg, split) if split != 'train' else ()
        if split != 'test' or 'train' in splits:  # what a test compares with is the checkpoint
            faults += order_faults(cfg, split)
        evaluations = find_evaluations(cfg, split) if split != 'train' else []
        sources = find_datasets(cfg, split)
        faults += other_image_faults(sources, evaluations)
        for source in sources:
            names, class_faults = class_names(source)
            faults += class_faults
            if class_faults:
                continue
            faults += head_faults(cfg, source, names)
            for job in _jobs(source, evaluations, split, is_alone=len(sources) == 1):
                key = (*job, names, source.filter_cfg, source.indices, source.loading)
                if str(key) not in seen:  # val and test are often the same
                    seen[str(key)] = _check_file(job, names, source, decode_images)
                    faults += seen[str(key)].faults
                    left_out += seen[str(key)].left_out
    if faults:
        raise DataError(*dict.fromkeys(faults))
    return list(dict.fromkeys(left_out))


class _Job(NamedTuple):
    """An annotation file to check, and how it is read."""

    ann_file: Path
    image_folder: Optional[Path]
    reading: Reading


def _jobs(source: CocoSource, evaluations: Sequence[Evaluation], split: str, is_alone: bool) -> Iterator[_Job]:
    """The file of a dataset, and the files of its evaluators if they are others.

    With several datasets and several evaluators (``is_alone`` is False then) nothing says which belong together.
    """
    same, others = [], []
    for evaluation in evaluations:
        if evaluation.ann_file is None or _is_same_file(evaluation.ann_file, source.ann_file):
            same.append(evaluation)
        elif os.path.isfile(evaluation.ann_file):
            others.append(evaluation)
    evaluated = [one for one in same if not one.format_only and one.ann_file is not None]
    needs_objects = source.annotated if split == 'train' else any(not one.format_only for one in same)
    reading = Reading(
        masks=(source.annotated and source.masks) or any(one.masks for one in evaluated),
        objects=needs_objects,
        evaluated=bool(evaluated),
        polygons_only=source.polygons_only,
    )
    yield _Job(source.ann_file, source.image_folder, reading)
    for one in others:
        if (is_alone or len(evaluations) == 1) and not one.format_only:
            yield _Job(one.ann_file or source.ann_file, None, Reading(one.masks, True, True))


def _is_same_file(first: Path, second: Path) -> bool:
    return os.path.realpath(first) == os.path.realpath(second)


def _check_file(job: _Job, classes: Sequence[str], source: CocoSource, decode_images: bool) -> Findings:
    is_of_dataset = job.image_folder is not None
    return check_annotations(
        job.ann_file,
        classes,
        job.image_folder,
        decode_images=decode_images,
        filter_cfg=source.filter_cfg if is_of_dataset else None,
        indices=source.indices if is_of_dataset else None,
        loading=source.loading,
        key=source.key,
        **job.reading._asdict(),
    )


def check_annotations(
    ann_file: Union[str, Path],
    classes: Sequence[str],
    image_folder: Union[str, Path, None] = None,
    masks: bool = False,
    objects: bool = True,
    decode_images: bool = False,
    evaluated: bool = False,
    polygons_only: bool = False,
    filter_cfg: Optional[dict] = None,
    indices: Any = None,
    loading: Optional[Loading] = None,
    key: str = 'dataset',
) -> Findings:
    """Check one annotation file in COCO format.

    Args:
        ann_file (str | Path): The file.
        classes (Sequence[str]): Class names of the model.
        image_folder (str | Path, optional): The folder of the images. By default they are not looked for.
        masks (bool): Whether masks are learned or evaluated. Defaults to False.
        objects (bool): Whether there have to be objects: a test set may come without. Defaults to True.
        decode_images (bool): Decode every image. Defaults to False.
        evaluated (bool): Whether pycocotools evaluates on the file, which needs more fields. Defaults to False.
        polygons_only (bool): Whether masks are loaded with ``poly2mask=False``. Defaults to False.
        filter_cfg (dict, optional): The ``filter_cfg`` of the dataset.
        indices (int | Sequence[int], optional): The ``indices`` of the dataset.
        loading (Loading, optional): What the pipeline loads of an image. By default, as ``LoadImageFromFile`` does.
        key (str): The place of the dataset in its config, for messages.

    Returns:
        Findings: All that was found.
    """
    ann_file = Path(ann_file)
    try:
        data = read_annotation_file(ann_file, objects)
    except DataError as error:
        return Findings(error.faults, [])
    categories, faults = check_categories(data['categories'], classes)
    images, more = check_images(data['images'])
    faults += more
    entries = data.get('annotations', ())
    found = check_objects(entries, images, categories, classes, Reading(masks, objects, evaluated, polygons_only))
    faults += found.faults
    left_out = found.left_out + shared_files(images)
    if objects and images and not faults:
        more, without = _nothing_left(found, entries, classes)
        faults += more
        left_out = left_out + without
    if images and not faults:
        more, filtered = _filter(images, found.images, filter_cfg, indices, key, evaluated)
        faults += more
        left_out = left_out + filtered
    if image_folder is not None:
        faults += image_faults(images.values(), Path(image_folder), decode_images, loading or Loading())
    return Findings([f'{ann_file}: {fault}' for fault in faults], [f'{ann_file}: {text}' for text in left_out])


def _nothing_left(found: ObjectFindings, entries: Sequence[Any], classes: Sequence[str]) -> Tuple[List[str], List[str]]:
    """A fault if no object is left to learn from or to evaluate; classes without one."""
    if not any(found.per_class.values()):
        reasons = ''.join(f'; {line.partition(": ")[2]}' for line in found.left_out)
        return [
            f'annotations: none of {len(entries)} is of a class of {some(classes)} and can be learned from or '
            f'evaluated{reasons}'
        ], []
    without = [name for name, count in found.per_class.items() if not count]
    return [], [f'classes: {some(without)} have no object to learn from or to evaluate'] if without else []


def _filter(
    images: Dict[Any, dict], with_objects: set, filter_cfg: Optional[dict], indices: Any, key: str, evaluated: bool
) -> Tuple[List[str], List[str]]:
    """What ``CocoDataset.filter_data`` and ``indices`` leave of the images."""
    filter_cfg = filter_cfg or {}
    without, small = 0, 0
    left = []
    for number, image in images.items():
        if filter_cfg.get('filter_empty_gt', False) and number not in with_objects:
            without += 1
        elif min(image['width'], image['height']) < filter_cfg.get('min_size', 0):
            small += 1
        else:
            left.append(number)
    lines = [f'{key}.filter_cfg.filter_empty_gt=True takes away {without} of {len(images)} images'] if without else []
    if small:
        lines.append(f'{key}.filter_cfg.min_size={filter_cfg["min_size"]} takes away {small} of {len(images)} images')
    if not left:
        return [f'no image is left: {", ".join(lines)}'], []
    if isinstance(indices, int):
        left = left[:indices] if indices >= 0 else left[indices:]
    elif indices is not None:
        wrong = [index for index in indices if not -len(left) <= index < len(left)]
        if wrong:
            return [f'{key}.indices holds {some(wrong)}, and {len(left)} images are left'], lines
        left = [left[index] for index in indices]
    if not left:
        return [f'{key}.indices={indices!r} leaves no image'], lines
    unseen = with_objects.difference(left)
    if evaluated and unseen:
        lines.append(
            f'{key} uses {len(left)} of {len(images)} images, and the evaluation counts the objects in '
            f'{len(unseen)} others as not found'
        )
    return [], lines
