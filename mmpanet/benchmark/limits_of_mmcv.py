# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What mmcv's operators cannot take: other formats than float32 on the CPU, and maps in channels-last memory."""

from functools import partial
from typing import Any, Callable, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor


def use_mmcv_in_float32(module: nn.Module) -> None:
    """Give mmcv's RoIAlign and NMS float32, because they take nothing else on the CPU."""
    change_maps_of_mmdet(module, Tensor.float)
    for name in ('rpn_head', 'bbox_head'):
        head: Any = getattr(module, name, None)
        if hasattr(head, 'predict_by_feat'):
            head.predict_by_feat = partial(_call_in_float32, head.predict_by_feat)


def _call_in_float32(function: Callable[..., Any], *outputs: Any, **kwargs: Any) -> Any:
    with torch.autocast('cpu', enabled=False):
        return function(*([level.float() for level in output] if output else output for output in outputs), **kwargs)


def change_maps_of_mmdet(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Let mmdet's RoI extractors read changed maps. Ours read any of them."""

    def changed(part: nn.Module, args: Tuple[Any, ...]) -> Tuple[Any, ...]:
        feats, *others = args
        return (tuple(map(change, feats)), *others)

    for part in module.modules():
        if type(part).__module__.startswith('mmdet.') and isinstance(part, BaseRoIExtractor):
            part.register_forward_pre_hook(changed)
