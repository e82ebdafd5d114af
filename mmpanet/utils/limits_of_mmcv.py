# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What mmcv's operators cannot take: other formats than float32 on the CPU, and maps in channels-last memory."""

from functools import partial
from typing import Any, Callable, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor


def use_mmcv_in_float32(model: nn.Module) -> None:
    """Prepare a model for autocast on the CPU, where mmcv's RoIAlign and NMS take nothing but float32.

    All heads make their results in float32 from then on: they decode boxes and draw masks. bfloat16 has eight
    significant bits, which are too few for coordinates.

    Args:
        model: The detector. It is changed in place.
    """
    change_maps_of_mmdet(model, Tensor.float)
    for part in model.modules():
        if hasattr(part, 'predict_by_feat'):
            part.predict_by_feat = partial(_call_in_float32, part.predict_by_feat)


def _call_in_float32(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with torch.autocast('cpu', enabled=False):
        return function(*map(_in_float32, args), **{name: _in_float32(value) for name, value in kwargs.items()})


def _in_float32(value: Any) -> Any:
    """Tensors of other floating-point formats, alone or in lists and tuples, in float32; all else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.float()
    return type(value)(map(_in_float32, value)) if type(value) in (list, tuple) else value


def change_maps_of_mmdet(module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
    """Let mmdet's RoI extractors read changed maps. Ours read any of them."""

    def changed(part: nn.Module, args: Tuple[Any, ...]) -> Tuple[Any, ...]:
        feats, *others = args
        return (tuple(map(change, feats)), *others)

    for part in module.modules():
        if type(part).__module__.startswith('mmdet.') and isinstance(part, BaseRoIExtractor):
            part.register_forward_pre_hook(changed)
