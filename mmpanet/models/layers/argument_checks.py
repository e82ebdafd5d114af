# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checks of arguments that mmdet's and mmcv's constructors take as they are, or refuse without a name."""

from typing import Any

from mmcv import ops
from mmengine.registry import MODELS


def check_count(name: str, value: Any, others: str = '') -> None:
    """Raise a ValueError unless ``value`` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f'{name}={value!r} must be {others}a whole number of at least 1')


def check_counts(arguments: dict, *names: str) -> None:
    """The same for those of ``names`` that are among the arguments."""
    for name in names:
        if name in arguments:
            check_count(name, arguments[name])


def check_size(name: str, value: Any) -> None:
    """Raise a ValueError unless ``value`` is a side of 1 or more, or a height and a width."""
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f'{name}={value!r} must be a whole number of at least 1, or two of them')


def check_norm_cfg(name: str, value: Any, channels: int, others: str = 'None') -> None:
    """Raise a ValueError unless ``value`` is None or a norm config that can normalise ``channels`` channels."""
    if value is None:
        return
    if not isinstance(value, dict) or 'type' not in value:
        raise ValueError(f"{name}={value!r} must be a norm config such as dict(type='BN'), or {others}")
    if isinstance(value['type'], str):
        with MODELS.switch_scope_and_registry(None) as registry:  # where mmcv will look
            if registry.get(value['type']) is None:
                raise ValueError(
                    f"{name}={dict(value)!r} must have a registered norm for its type, such as 'BN', 'SyncBN' or 'GN'"
                )
    if value['type'] == 'GN':
        groups = value.get('num_groups')
        if not isinstance(groups, int) or groups < 1 or channels % groups:
            raise ValueError(f'{name}={dict(value)!r} must have a num_groups that divides {channels} channels')


def check_roi_extractor(roi_layer: Any, out_channels: Any, featmap_strides: Any) -> None:
    """Raise a ValueError for arguments of a RoI extractor that mmdet takes as they are."""
    check_count('out_channels', out_channels)
    if (
        not isinstance(featmap_strides, (list, tuple))
        or not featmap_strides
        or not all(isinstance(stride, (int, float)) and stride > 0 for stride in featmap_strides)
    ):
        raise ValueError(f'featmap_strides={featmap_strides!r} must be a list of numbers above 0, one a level')
    kind = roi_layer.get('type') if isinstance(roi_layer, dict) else None
    if kind is None or isinstance(kind, str) and not hasattr(ops, kind):
        raise ValueError(
            f'roi_layer={roi_layer!r} must be a dict whose type is an operator of mmcv.ops, such as '
            "dict(type='RoIAlign', output_size=7, sampling_ratio=2)"
        )
    check_size('roi_layer.output_size', roi_layer.get('output_size'))
    samples = roi_layer.get('sampling_ratio', 0)
    if not isinstance(samples, int) or samples < 0:
        raise ValueError(
            f'roi_layer.sampling_ratio={samples!r} must be a whole number of at least 1, or 0, which '
            'leaves it to the size of the RoI'
        )
