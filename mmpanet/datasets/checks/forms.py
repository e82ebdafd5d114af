# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Forms of the values in a dataset's config: those of MMDetection 2.x, and those that no version reads."""

import inspect
import os
from types import MappingProxyType
from typing import Any, Iterator, Mapping, Set, Tuple

from .values import fits_in_a_line, is_integer, short

# Keys of MMDetection 2.x in a dataset, and what 3.x has in their place
OLD_DATASET_KEYS = dict(
    classes='metainfo=dict(classes=...)',
    img_prefix='data_prefix=dict(img=...)',
    seg_prefix='data_prefix=dict(seg=...)',
    file_client_args='backend_args',
)


def dataset_form_faults(node: dict, key: str, kind: type) -> Iterator[str]:
    """Say which keys and values of a dataset MMDetection 3.x does not read.

    Args:
        node: The config of the dataset.
        key: Its place in the whole config.
        kind: Its class.
    """
    for name in ('ann_file', 'data_root'):
        value = node.get(name) or ''
        if isinstance(value, (list, tuple)):
            yield (
                f'{key}.{name}={short(value)} is a list, it takes one path; several datasets take '
                "type='ConcatDataset' with datasets=[...]"
            )
        elif not isinstance(value, (str, os.PathLike)):
            yield f'{key}.{name}={short(value)} is a {type(value).__name__}, it takes a path'
        elif not fits_in_a_line(str(value)):
            yield f'{key}.{name}={short(value)} holds a control character, it takes a path without'
    prefix = node.get('data_prefix', {})
    if not isinstance(prefix, dict):
        yield f'{key}.data_prefix={short(prefix)} is a {type(prefix).__name__}, it takes dict(img={short(prefix)})'
    elif 'img' not in prefix and 'img_prefix' not in node:
        yield f'{key}.data_prefix={short(dict(prefix))} has no img, the image folder, such as dict(img="images/")'
    elif not all(isinstance(value, str) and fits_in_a_line(value) for value in prefix.values()):
        yield f'{key}.data_prefix={short(dict(prefix))}, it takes paths, such as dict(img="images/")'
    metainfo = node.get('metainfo')
    if metainfo is not None and not isinstance(metainfo, dict):
        yield f'{key}.metainfo={short(metainfo)} is a {type(metainfo).__name__}, it takes dict(classes=(...))'
    elif metainfo and 'classes' not in metainfo and 'CLASSES' in metainfo:
        yield f'{key}.metainfo.CLASSES={short(metainfo["CLASSES"])} is not read, it takes the key classes'
    filter_cfg = node.get('filter_cfg')
    if filter_cfg is not None and not isinstance(filter_cfg, dict):
        yield f'{key}.filter_cfg={short(filter_cfg)} is no dict, it takes dict(min_size=32) and the like'
    elif filter_cfg and not isinstance(filter_cfg.get('min_size', 0), (int, float)):
        yield f'{key}.filter_cfg={short(filter_cfg)}, it takes dict(filter_empty_gt=True, min_size=32) and the like'
    indices = node.get('indices')
    if not (
        indices is None or is_integer(indices) or isinstance(indices, (list, tuple)) and all(map(is_integer, indices))
    ):
        yield f'{key}.indices={short(indices)}, it takes a number of images or a list of their indices'
    pipeline = node.get('pipeline') or []
    if not isinstance(pipeline, (list, tuple)):
        yield f'{key}.pipeline={short(pipeline)} is a {type(pipeline).__name__}, it takes a list of transforms'
    yield from argument_faults(node, key, kind, OLD_DATASET_KEYS)


def argument_faults(
    node: dict, key: str, kind: Any, old_keys: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Say which keys of a config its class does not take, and which it lacks. A class of another package takes any.

    Args:
        node: The config.
        key: Its place in the whole config.
        kind: Its class.
        old_keys: Keys of MMDetection 2.x, and what 3.x has in their place.
    """
    allowed, needed = _arguments(kind)
    for name, value in node.items():
        if name in old_keys:
            yield f'{key}.{name}={short(value)} is a key of MMDetection 2.x; MMDetection 3.x takes {old_keys[name]}'
        elif allowed and name not in ('type', '_scope_', *allowed):
            yield f'{key}.{name}={short(value)} is no key of {kind.__name__}, it takes {", ".join(sorted(allowed))}'
    for name in sorted(needed):
        if name not in node:
            yield f'{key}.{name} is missing, which {kind.__name__} needs'


METRICS = ('bbox', 'segm', 'proposal', 'proposal_fast')  # of mmdet's CocoMetric


def metric_faults(metric: Any, key: str, model: Any) -> Iterator[str]:
    """Say which metrics ``CocoMetric`` does not know, or has no predictions for.

    Args:
        metric: Its ``metric``.
        key: The place of this value in the config.
        model: The config of the model.
    """
    metrics = metric if isinstance(metric, list) else [metric]
    unknown = [one for one in metrics if one not in METRICS]
    if unknown or not metrics:
        yield f'{key}={short(metric)}, it takes {", ".join(METRICS)}, or a list of them'
    roi_head = model.get('roi_head') if isinstance(model, dict) else None
    boxes_only = isinstance(roi_head, dict) and not any('mask' in name and value for name, value in roi_head.items())
    if 'segm' in metrics and boxes_only:
        yield f"{key}={short(metric)} holds 'segm', and model.roi_head has no mask_head: it predicts no masks"


def _arguments(kind: Any) -> Tuple[Set[str], Set[str]]:
    """Names of the arguments of a class of OpenMMLab's, and of those without a default; nothing for other classes."""
    found: Set[str] = set()
    needed: Set[str] = set()
    for base in getattr(kind, '__mro__', ()):
        if '__init__' not in vars(base):
            continue
        if not base.__module__.startswith(('mmdet.', 'mmengine.')):
            return set(), set()
        parameters = list(inspect.signature(vars(base)['__init__']).parameters.values())
        named = [one for one in parameters[1:] if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
        if base is kind.__mro__[0]:
            needed = {one.name for one in named if one.default is one.empty}
        found.update(one.name for one in named)
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            break
    return found - {'file_client_args'}, needed
