# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Names of a detector's classes: of its checkpoint, of its config, or else numbers."""

import re
from copy import deepcopy
from typing import Any, Dict, Optional

from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet.registry import DATASETS
from mmpanet.utils.errors import ConfigError


def dataset_meta_of(checkpoint: Dict[str, Any], cfg: Config, model: nn.Module) -> Dict[str, Any]:
    """What mmdet calls ``dataset_meta``: names of the classes, and colors if there are any.

    mmdet 3.3 takes COCO's 80 names if a checkpoint has none. Here the names of the config's data take their place, if
    there are as many as the model has classes, or else numbers.

    Args:
        checkpoint: As mmengine saves it, or a bare state dict.
        cfg: The config of the model.
        model: The model.

    Returns:
        A dict with 'classes', and perhaps 'palette'. It is empty if nothing says how many classes there are.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    saved = meta.get('dataset_meta')
    saved = {key.lower(): value for key, value in saved.items()} if isinstance(saved, dict) else {}
    if 'classes' not in saved and 'CLASSES' in meta:  # MMDetection 2.x
        saved = dict(classes=meta['CLASSES'])
    if saved.get('classes'):
        return saved
    number = num_classes_of(model)
    for split in ('test', 'val', 'train'):
        configured = _configured_meta(cfg, split)
        if configured.get('classes') and number in (None, len(configured['classes'])):
            return configured
    return {} if number is None else dict(classes=tuple(str(label) for label in range(number)))


def num_classes_of(model: nn.Module) -> Optional[int]:
    """The number of classes of a detector's box or mask head, or None if it has none that says so."""
    for name, module in model.named_modules():
        if re.search(r'(^|\.)(bbox_head|mask_head)(\.\d+)?$', name):
            number = getattr(module, 'num_classes', None)
            if isinstance(number, int):
                return number
    return None


def first_dataset(dataset: Any) -> Any:
    """A copy of the config of a dataset, or of the first one inside wrappers, which read annotations when built."""
    while isinstance(dataset, dict) and (dataset.get('dataset') or dataset.get('datasets')):
        dataset = dataset.get('dataset') or dataset['datasets'][0]
    return deepcopy(dataset)


def _configured_meta(cfg: Config, split: str) -> Dict[str, Any]:
    """What the dataset of a split says, or the first one inside its wrappers, without reading its annotations."""
    dataset = first_dataset((cfg.get(f'{split}_dataloader') or {}).get('dataset'))
    if not isinstance(dataset, dict) or not dataset:
        return {}
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    dataset['lazy_init'] = True
    try:
        return dict(DATASETS.build(dataset).metainfo)
    except (OSError, TypeError, KeyError) as error:
        raise ConfigError(f'{split}_dataloader.dataset: its class names cannot be read: {error}') from error
