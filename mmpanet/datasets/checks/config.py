# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a config says about its data: datasets, classes, the heads of the model."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmengine.config import Config
from mmengine.dataset import RepeatDataset
from mmengine.fileio import list_from_file
from mmengine.registry import Registry, init_default_scope

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmpanet.utils.configs import dicts_in, type_name
from mmpanet.utils.errors import DataError
from mmpanet.utils.images import Loading, find_loading
from .forms import argument_faults, dataset_form_faults
from .values import is_integer, short, some


class CocoSource(NamedTuple):
    """A dataset of a config that MMDetection's ``CocoDataset`` reads.

    Attributes:
        key (str): Its place in the config.
        ann_file (Path): The annotation file.
        image_folder (Path): The folder that its file names are relative to.
        classes (Any): The value of ``metainfo.classes``, or else of the dataset class.
        masks (bool): Whether its pipeline loads masks.
        polygons_only (bool): Whether it loads them with ``poly2mask=False``.
        annotated (bool): Whether its pipeline loads annotations.
        return_classes (bool): Whether it is for a model that is given class names as text.
        filter_cfg (dict | None): What is filtered out; None in ``test_mode``.
        indices (Any): Which of the images are used.
        loading (Loading): What its pipeline loads of an image.
    """

    key: str
    ann_file: Path
    image_folder: Path
    classes: Any
    masks: bool
    polygons_only: bool
    annotated: bool
    return_classes: bool
    filter_cfg: Optional[dict]
    indices: Any
    loading: Loading


def find_datasets(cfg: Config, split: str) -> List[CocoSource]:
    """Find the datasets in COCO format of a split, also those inside wrappers (``RepeatDataset`` and the like).

    Datasets with values of a wrong form are not among them, see :func:`form_faults`.
    """
    return [
        _source(node, key, kind)
        for node, key, kind in _coco_nodes(cfg, split)
        if not list(dataset_form_faults(node, key, kind))
    ]


def form_faults(cfg: Config, split: str) -> List[str]:
    """Say which values of the datasets of a split have a form that MMDetection 3.x does not read."""
    if cfg.get('data') is not None and cfg.get(f'{split}_dataloader') is None:
        return [
            'data is a key of MMDetection 2.x; MMDetection 3.x takes train_dataloader, val_dataloader and '
            'test_dataloader (see its guide on migration)'
        ]
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        return []
    if not isinstance(loader, dict) or 'dataset' not in loader:
        return [f'{split}_dataloader={short(loader)}, it takes a dict with dataset, batch_size and the like']
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    return [
        *_structure_faults(loader['dataset'], f'{split}_dataloader.dataset'),
        *(fault for node, key, kind in _coco_nodes(cfg, split) for fault in dataset_form_faults(node, key, kind)),
    ]


def unset_faults(cfg: Config, split: str) -> Iterator[str]:
    """Name datasets without an annotation file, which a config may have for a split that it does not use."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    for node, key in _leaves(cfg.get(f'{split}_dataloader') or {}, f'{split}_dataloader'):
        kind = registered(node.get('type'), DATASETS)
        reads_file = getattr(kind, 'load_data_list', None) is CocoDataset.load_data_list
        if reads_file and not node.get('ann_file'):
            yield f'{key}.ann_file={node.get("ann_file")!r}, it takes the path of an annotation file'


def registered(name: Any, registry: Registry) -> Any:
    """What a registry holds under a name, or None. A class stands for itself."""
    if not isinstance(name, str):
        return name if callable(name) else None
    try:
        return registry.get(name)
    except Exception:  # mmengine tries to import what is not registered
        return None


def _structure_faults(node: Any, key: str) -> Iterator[str]:
    """Say what is no dataset: a value that is no dict, a class that is not registered, a wrapper of nothing."""
    if not isinstance(node, dict):
        yield f'{key}={short(node)}, it takes a dict with the type of a dataset'
        return
    kind = registered(node.get('type'), DATASETS)
    if kind is None:
        yield (
            f'{key}.type={short(node.get("type"))} is no dataset that is registered; a module that registers it must '
            'be named in custom_imports'
        )
    elif not (isinstance(kind, type) and issubclass(kind, CocoDataset)):  # whose keys are looked at elsewhere
        yield from argument_faults(node, key, kind)
    if 'dataset' in node:
        yield from _structure_faults(node['dataset'], f'{key}.dataset')
    datasets = node.get('datasets')
    if isinstance(datasets, (list, tuple)) and datasets:
        for i, item in enumerate(datasets):
            yield from _structure_faults(item, f'{key}.datasets[{i}]')
    elif 'datasets' in node:
        yield f'{key}.datasets={short(datasets)}, it takes a list of datasets'
    if kind is RepeatDataset and 'times' in node and not (is_integer(node['times']) and node['times'] > 0):
        yield f'{key}.times={node["times"]!r}, it takes a whole number above 0'


def _coco_nodes(cfg: Config, split: str) -> Iterator[Tuple[dict, str, type]]:
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    for node, key in _leaves(cfg.get(f'{split}_dataloader') or {}, f'{split}_dataloader'):
        kind = _coco_class(node)
        if kind is not None:
            yield node, key, kind


def _leaves(node: Any, key: str) -> Iterator[Tuple[dict, str]]:
    """The configs of the datasets inside a data loader and inside wrappers, and their places."""
    if isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from _leaves(item, f'{key}[{i}]')
    elif isinstance(node, dict):
        inside = [name for name in ('dataset', 'datasets') if name in node]
        if not inside and not key.endswith('_dataloader'):
            yield node, key
        for name in inside:
            yield from _leaves(node[name], f'{key}.{name}')


def _coco_class(node: dict) -> Optional[type]:
    """The class of a dataset's config, if it reads annotations from a file system as ``CocoDataset`` does."""
    kind = registered(node.get('type'), DATASETS)
    if not isinstance(kind, type) or not issubclass(kind, CocoDataset) or not node.get('ann_file'):
        return None
    own_reader = any(
        getattr(kind, name) is not getattr(CocoDataset, name) for name in ('load_data_list', 'parse_data_info')
    )
    metainfo = node.get('metainfo')
    if not (isinstance(metainfo, dict) and 'classes' in metainfo) and not getattr(kind, 'METAINFO', {}).get('classes'):
        return None  # V3Det reads its classes from a file of its own
    prefix = node.get('data_prefix')
    places = [node['ann_file'], node.get('data_root'), prefix.get('img') if isinstance(prefix, dict) else prefix]
    elsewhere = node.get('backend_args') or any('://' in place for place in places if isinstance(place, str))
    return None if own_reader or elsewhere else kind


def _source(node: dict, key: str, dataset_class: Any) -> CocoSource:
    root = node.get('data_root') or ''
    # Also those inside others, such as MultiBranch and RandomChoice.
    steps = [step for _, step in dicts_in(node.get('pipeline') or (), 'pipeline') if 'type' in step]
    loaders = [step for step in steps if type_name(step.get('type')).endswith('LoadAnnotations')]
    return CocoSource(
        key=key,
        ann_file=Path(root, node['ann_file']),
        image_folder=Path(root, (node.get('data_prefix') or {}).get('img', '')),
        classes=(node.get('metainfo') or {}).get('classes', dataset_class.METAINFO.get('classes')),
        masks=any(bool(step.get('with_mask')) for step in loaders),
        polygons_only=any(bool(step.get('with_mask')) and not step.get('poly2mask', True) for step in loaders),
        annotated=bool(loaders) or not any(type_name(step.get('type')) == 'LoadEmptyAnnotations' for step in steps),
        return_classes=bool(node.get('return_classes')),
        filter_cfg=None if node.get('test_mode') else node.get('filter_cfg'),
        indices=node.get('indices'),
        loading=find_loading(node.get('pipeline') or ()),
    )


def class_names(source: CocoSource) -> Tuple[Tuple[str, ...], List[str]]:
    """The names of the classes of a dataset, and what is wrong with them."""
    key, classes = f'{source.key}.metainfo.classes', source.classes
    if isinstance(classes, str):
        if not os.path.isfile(classes):  # mmengine reads a file of names
            return (), [
                f'{key}={classes!r} is one string and no file of names, it takes a tuple of names; with a single '
                f'name: ({classes!r}, )'
            ]
        classes = tuple(list_from_file(classes))
    if not isinstance(classes, (list, tuple)) or not all(isinstance(name, str) for name in classes):
        return (), [f'{key}={short(classes)}, it takes a tuple of names, such as ("cat", "dog")']
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice or not classes:
        held = f'holds {twice[0]!r} twice' if twice else 'is empty'
        return (), [f'{key}={short(classes)} {held}, it takes one name or more, each once']
    return tuple(classes), []


def order_faults(cfg: Config, split: str, trained: Optional[Sequence[str]] = None) -> Iterator[str]:
    """Datasets of a split that have a class of the training at another place.

    MMDetection numbers labels in the order of each dataset, so their objects would be taken for those of other classes.
    Models that are given class names as text do not depend on the order.

    Args:
        cfg: The config.
        split: 'train', 'val' or 'test'.
        trained: The classes of the training, in its order. By default those of the config's first training dataset.
    """
    if trained is None:
        trained = next((class_names(source)[0] for source in find_datasets(cfg, 'train')), ())
    for source in find_datasets(cfg, split):
        names, _ = class_names(source)
        moved = len(names) == len(trained) and any(
            name != other and name in trained for name, other in zip(names, trained)
        )
        if moved and not source.return_classes:
            yield (
                f'{source.key}.metainfo.classes is {some(names)}, and the training has its classes in another order, '
                f'{some(trained)}: the model numbers labels in that one. Bring the categories of {source.ann_file} and '
                'the classes into it'
            )


def check_class_order(cfg: Config, trained: Sequence[str], where: str) -> None:
    """Refuse to test labels that were numbered in another order.

    Args:
        cfg: The config of the test. ``check_annotations=False`` in it leaves this check out.
        trained: The classes, in the order of their labels.
        where: What says this order, for the message.

    Raises:
        DataError: If a test dataset has one of these classes at another place.
    """
    for fault in order_faults(cfg, 'test', trained) if cfg.get('check_annotations', True) else ():
        raise DataError(f'{where}: {fault}\n(check_annotations=False in the config leaves this check out)')


def head_faults(cfg: Config, source: CocoSource, classes: Sequence[str]) -> Iterator[str]:
    """Compare the number of classes of all heads, also those of nested models, with those of a dataset."""
    if source.return_classes:
        return
    for key, count in _class_counts(cfg.get('model')):
        if count != len(classes):
            yield f'{key}={count}, but {source.key} has {len(classes)} classes: {some(classes)}'


# Heads that know objects from background only, or classes of pixels
_OTHER_HEADS = ('rpn_head', 'semantic_head', 'seg_head', 'segm_head')


def _class_counts(model: Any) -> Iterator[Tuple[str, int]]:
    for key, head in dicts_in(model, 'model', skip=_OTHER_HEADS):
        if re.search(r'_head(\[\d+\])?$', key):
            for option in ('num_classes', 'num_things_classes'):
                if isinstance(head.get(option), int):
                    yield f'{key}.{option}', head[option]
