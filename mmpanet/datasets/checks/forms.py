# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Forms of the values in a dataset's config: those of MMDetection 2.x, and those that no version reads."""

import inspect
import os
from typing import Iterator, Set

from .values import short

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
        elif not isinstance(value, (str, os.PathLike)) or '\0' in str(value):
            yield f'{key}.{name}={short(value)} is a {type(value).__name__}, it takes a path'
    prefix = node.get('data_prefix', {})
    if not isinstance(prefix, dict):
        yield f'{key}.data_prefix={short(prefix)} is a {type(prefix).__name__}, it takes dict(img={short(prefix)})'
    elif not all(isinstance(value, str) and '\0' not in value for value in prefix.values()):
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
    pipeline = node.get('pipeline') or []
    if not isinstance(pipeline, (list, tuple)):
        yield f'{key}.pipeline={short(pipeline)} is a {type(pipeline).__name__}, it takes a list of transforms'
    allowed = _arguments(kind)
    for name, value in node.items():
        if name in OLD_DATASET_KEYS:
            yield (
                f'{key}.{name}={short(value)} is a key of MMDetection 2.x; MMDetection 3.x takes '
                f'{OLD_DATASET_KEYS[name]}'
            )
        elif allowed and name not in ('type', '_scope_', *allowed):
            yield f'{key}.{name}={short(value)} is no key of {kind.__name__}, it takes {", ".join(sorted(allowed))}'


def _arguments(kind: type) -> Set[str]:
    """Names of the arguments of a dataset class of MMDetection, nothing for a class of another package."""
    found: Set[str] = set()
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        if not base.__module__.startswith(('mmdet.', 'mmengine.')):
            return set()
        parameters = list(inspect.signature(vars(base)['__init__']).parameters.values())
        found.update(one.name for one in parameters[1:] if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD))
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            break
    return found - {'file_client_args'}
