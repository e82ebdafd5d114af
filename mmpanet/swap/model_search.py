# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Find the detectors in a config's model. A tracker or a wrapper contains one."""

from typing import Any, Iterator, List, Tuple

from mmpanet.models import AdaptiveFeaturePooling, PANetNeck, RotatedAdaptiveFeaturePooling
from mmpanet.utils.configs import type_name
from .types import SwapError

# Where a model has its necks. MMDetection3D's models have one for images and one for points.
NECK_KEYS = ('neck', 'img_neck', 'pts_neck')
PARTS = (
    *NECK_KEYS, 'roi_head', 'bbox_roi_extractor', 'mask_roi_extractor', 'roi_layer', 'bbox_head', 'mask_head',
)  # fmt: skip


def find_models(node: Any, path: Tuple[str, ...] = ('model',)) -> Iterator[Tuple[Tuple[str, ...], dict]]:
    """Find all dicts with a neck in a config's model, with their paths, from the outermost inwards.

    The config of a teacher (``teacher_config`` of LD) is passed over, because its checkpoint stays as it is.
    """
    if isinstance(node, dict):
        if any(node.get(key) for key in NECK_KEYS):
            yield path, node
        for key in list(node.keys()):
            if key != 'teacher_config':
                yield from find_models(node[key], (*path, key))
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from find_models(item, (*path, str(i)))


def necks_of(model: dict) -> List[dict]:
    """The necks of a model as one list. Each of its keys may have one dict or a list of several."""
    necks = [model.get(key) or [] for key in NECK_KEYS]
    return [neck for some in necks for neck in ([some] if isinstance(some, dict) else some)]


def extractors_of(model: dict) -> List[dict]:
    """The RoI extractors of a model's RoI head, or of several. A cascade may have lists of them."""
    roi_heads = model.get('roi_head') or []
    roi_heads = [roi_heads] if isinstance(roi_heads, dict) else roi_heads
    extractors = [one.get(f'{branch}_roi_extractor') or [] for one in roi_heads for branch in ('bbox', 'mask')]
    return [one for some in extractors for one in ([some] if isinstance(some, dict) else some)]


def check_types(node: dict, path: Tuple[str, ...]) -> None:
    """Check that each part of a model that a swap looks at is a config with a type.

    Raises:
        SwapError: If one is not. The message names its key.
    """
    for key in PARTS:
        parts = node.get(key) or []
        for part in parts if isinstance(parts, (list, tuple)) else [parts]:
            if not isinstance(part, dict) or not part.get('type'):
                found = sorted(part) if isinstance(part, dict) else part
                raise SwapError(f"{'.'.join(path)}.{key} must be a config with a 'type', and is {found!r}")
            check_types(part, (*path, key))


def is_swapped(model: dict) -> bool:
    """Whether a model has a ``PANetNeck``, or adaptive feature pooling behind another neck."""
    names = {type_name(part['type']) for part in [*necks_of(model), *extractors_of(model)]}
    return not names.isdisjoint(
        one.__name__ for one in (PANetNeck, AdaptiveFeaturePooling, RotatedAdaptiveFeaturePooling)
    )
