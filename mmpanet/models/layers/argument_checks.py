# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checks of arguments that mmdet's and mmcv's constructors accept unchecked, or refuse without naming them."""

from typing import Any, List, Union

from mmcv import ops
from mmengine.registry import MODELS

from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ConfigError

EXTRA_CONVS = (False, True, 'on_input', 'on_lateral', 'on_output')


def check_count(name: str, value: Any, others: str = '') -> None:
    """Raise a ConfigError unless ``value`` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f'{name}={value!r} must be {others}a whole number of at least 1')


def check_counts(arguments: dict, *names: str) -> None:
    """Raise a ConfigError unless all ``names`` that are among the arguments are whole numbers of at least 1."""
    for name in names:
        if name in arguments:
            check_count(name, arguments[name])


def check_size(name: str, value: Any) -> None:
    """Raise a ConfigError unless ``value`` is a side of at least 1, or a height and a width."""
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ConfigError(f'{name}={value!r} must be a whole number of at least 1, or two of them')


def check_norm_cfg(name: str, value: Any, channels: int, others: str = 'None') -> None:
    """Raise a ConfigError unless ``value`` is None or a norm config that can normalize ``channels`` channels."""
    if value is None:
        return
    if not isinstance(value, dict) or 'type' not in value:
        raise ConfigError(f"{name}={value!r} must be a norm config such as dict(type='BN'), or {others}")
    if isinstance(value['type'], str):
        with MODELS.switch_scope_and_registry(None) as registry:  # the registry in which mmcv looks
            if registry.get(value['type']) is None:
                raise ConfigError(
                    f"{name}={dict(value)!r} must have a registered norm for its type, such as 'BN', 'SyncBN' or 'GN'"
                )
    if type_name(value['type']) in ('GN', 'GroupNorm'):
        groups = value.get('num_groups')
        if not isinstance(groups, int) or groups < 1 or channels % groups:
            raise ConfigError(f'{name}={dict(value)!r} must have a num_groups that divides {channels} channels')


def check_roi_extractor(roi_layer: Any, out_channels: Any, featmap_strides: Any) -> None:
    """Raise a ConfigError for arguments of an RoI extractor that mmdet accepts unchecked."""
    check_count('out_channels', out_channels)
    if (
        not isinstance(featmap_strides, (list, tuple))
        or not featmap_strides
        or not all(isinstance(stride, (int, float)) and stride > 0 for stride in featmap_strides)
    ):
        raise ConfigError(
            f'featmap_strides={featmap_strides!r} must be a list of numbers above 0, one number for each level'
        )
    kind = roi_layer.get('type') if isinstance(roi_layer, dict) else None
    if kind is None or isinstance(kind, str) and not hasattr(ops, kind):
        raise ConfigError(
            f'roi_layer={roi_layer!r} must be a dict whose type is an operator of mmcv.ops, such as '
            "dict(type='RoIAlign', output_size=7, sampling_ratio=2)"
        )
    check_size('roi_layer.output_size', roi_layer.get('output_size'))
    samples = roi_layer.get('sampling_ratio', 0)
    if not isinstance(samples, int) or samples < 0:
        raise ConfigError(
            f'roi_layer.sampling_ratio={samples!r} must be a whole number of at least 1, or 0, which '
            'leaves it to the size of the RoI'
        )


def check_pyramid_levels(
    in_channels: List[int],
    out_channels: int,
    num_outs: int,
    start_level: int,
    end_level: int,
    add_extra_convs: Union[bool, str],
) -> None:
    """Raise a ConfigError that names the argument which mmdet's FPN would refuse with a bare assertion."""
    if (
        not isinstance(in_channels, list)
        or not in_channels
        or not all(isinstance(c, int) and c > 0 for c in in_channels)
    ):
        raise ConfigError(
            f'in_channels={in_channels!r} must be a list of numbers above 0, one number for each level of the backbone'
        )
    check_count('out_channels', out_channels)
    check_count('num_outs', num_outs)
    num_ins = len(in_channels)
    if start_level not in range(num_ins):
        raise ConfigError(f'start_level={start_level!r} must be 0 to {num_ins - 1}: in_channels names {num_ins} levels')
    if end_level != -1 and end_level not in range(start_level, num_ins):
        raise ConfigError(
            f'end_level={end_level!r} must be -1 (the last level) or {start_level} (start_level) to {num_ins - 1}: '
            f'in_channels names {num_ins} levels'
        )
    if add_extra_convs not in EXTRA_CONVS or isinstance(add_extra_convs, int) and not isinstance(add_extra_convs, bool):
        raise ConfigError(f'add_extra_convs={add_extra_convs!r} must be one of {EXTRA_CONVS}')
    if end_level in (-1, num_ins - 1):
        if num_outs < num_ins - start_level:
            raise ConfigError(
                f'num_outs={num_outs} must be at least {num_ins - start_level}: in_channels names {num_ins} levels and '
                f'start_level={start_level}; end_level leaves out the last ones'
            )
    elif num_outs != end_level - start_level + 1:
        raise ConfigError(
            f'num_outs={num_outs} must be {end_level - start_level + 1} with start_level={start_level} and '
            f'end_level={end_level}: there are extra levels only above the last level of the backbone'
        )
