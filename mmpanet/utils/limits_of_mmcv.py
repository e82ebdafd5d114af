# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What mmcv's operators cannot take: other formats than float32 on the CPU, and maps in channels-last memory."""

from functools import partial
from typing import Any, Callable

import torch
import torch.nn as nn
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor

# The methods of mmdet's heads that decode boxes, run NMS and draw masks.
METHODS_OF_RESULTS = ('predict_by_feat', 'regress_by_class')


def use_mmcv_in_float32(model: nn.Module) -> None:
    """Prepare a detector for autocast on the CPU, where mmcv's operators take nothing but float32.

    RoI extractors, deformable convolutions and NMS get float32. The heads also decode boxes and draw masks in float32,
    because bfloat16 has eight significant bits, which are too few for coordinates. This holds for the detectors of one
    and two stages whose heads return maps of scores and deltas. DETR, Sparse R-CNN and panoptic models make their
    results elsewhere, and were not tried.

    Args:
        model: The detector. It is changed in place; a second call changes nothing more. In float32, and in a training,
            it computes the same as before.
    """
    for part in model.modules():
        if _reads_maps_by_mmcv(part) or isinstance(part, (DeformConv2d, ModulatedDeformConv2d)):
            _wrap(part, 'forward', _call_in_float32)
        for name in METHODS_OF_RESULTS:
            if hasattr(part, name):
                _wrap(part, name, _call_in_float32)


def use_mmcv_with_contiguous_maps(model: nn.Module) -> None:
    """Give contiguous copies of channels-last maps to all RoI extractors but ours: mmcv's RoIAlign misreads others.

    Args:
        model: The detector. It is changed in place.
    """
    for part in model.modules():
        if _reads_maps_by_mmcv(part):
            _wrap(part, 'forward', _call_with_contiguous_maps)


def _reads_maps_by_mmcv(part: nn.Module) -> bool:
    return isinstance(part, BaseRoIExtractor) and not type(part).__module__.startswith('mmpanet.')


def _wrap(part: nn.Module, name: str, call: Callable[..., Any]) -> None:
    method = getattr(part, name)
    if not (isinstance(method, partial) and method.func is call):
        setattr(part, name, partial(call, method))


def _call_in_float32(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    with torch.autocast('cpu', enabled=False):
        return method(*_in_float32(args), **_in_float32(kwargs))


def _in_float32(value: Any) -> Any:
    """Tensors in half precision, alone or in lists, tuples and dicts, in float32; all else as it is."""
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()
    if type(value) is dict:
        return {key: _in_float32(one) for key, one in value.items()}
    return type(value)(map(_in_float32, value)) if type(value) in (list, tuple) else value


def _call_with_contiguous_maps(method: Callable[..., Any], feats: Any, *args: Any, **kwargs: Any) -> Any:
    return method(tuple(one.contiguous() for one in feats), *args, **kwargs)
