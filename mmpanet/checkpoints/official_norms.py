# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The backbone's norms: a frozen scale and bias in the official code, a batch norm in mmdet.

A scale and bias become the weight and bias of a BN with mean 0 and variance 1 - eps, which computes the same: in
float32, 1 - eps + eps is 1. On the way back any other BN is folded into a scale and a bias.
"""

from collections import OrderedDict
from typing import Dict, Iterator, Optional, Tuple

import torch
from torch import Tensor

from mmpanet.utils.errors import CheckpointError
from .official_rules import rules

BN_EPS = 1e-5
BN_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')


def batch_statistics(kind: str) -> Dict[str, Tensor]:
    """Running statistics with which each BN of the backbone computes its weight and bias alone.

    Args:
        kind: 'mask', 'det' or 'det_2fc'.
    """
    statistics = OrderedDict()
    for name, shape in _norms(kind):
        values = (torch.zeros(shape), torch.full(shape, 1 - BN_EPS), torch.tensor(0))
        for statistic, value in zip(BN_STATISTICS, values):
            statistics[f'{name}.{statistic}'] = value
    return statistics


def folded_batch_norms(kind: str, state_dict: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Scale and bias of each BN whose statistics are not those of :func:`batch_statistics`.

    Args:
        kind: 'mask', 'det' or 'det_2fc'.
        state_dict: In mmdet's names.

    Returns:
        The scales under the names of the weights, and the biases under their own.

    Raises:
        CheckpointError: If a shape is not that of the official model.
    """
    affine = batch_statistics(kind)
    folded: Dict[str, Tensor] = OrderedDict()
    for name, shape in _norms(kind):
        statistics = {f'{name}.{key}': state_dict[f'{name}.{key}'] for key in BN_STATISTICS}
        for key, value in statistics.items():
            check_shape(key, value, affine[key].shape)
        for key in (f'{name}.weight', f'{name}.bias'):
            check_shape(key, state_dict[key], shape)
        if not all(
            value.dtype == affine[key].dtype and torch.equal(value, affine[key]) for key, value in statistics.items()
        ):
            folded.update(_fold_batch_norm(state_dict, name))
    return folded


def kept_batch_norms(folded: Dict[str, Tensor], state_dict: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Copies of the batch norms that were folded, for :func:`restore_batch_norms`."""
    return OrderedDict(
        (f'{prefix}.{name}', state_dict[f'{prefix}.{name}'].clone())
        for prefix in OrderedDict.fromkeys(name.rpartition('.')[0] for name in folded)
        for name in ('weight', 'bias', *BN_STATISTICS)
    )


def restore_batch_norms(kind: str, state_dict: Dict[str, Tensor], kept: Optional[Dict[str, Tensor]]) -> None:
    """Put kept batch norms into ``state_dict``, except those whose official scale and bias have changed since."""
    if not isinstance(kept, dict):
        return
    for name, _ in _norms(kind):
        keys = [f'{name}.{key}' for key in ('weight', 'bias', *BN_STATISTICS)]
        if not all(isinstance(kept.get(key), Tensor) and kept[key].shape == state_dict[key].shape for key in keys):
            continue
        folded = _fold_batch_norm(kept, name)
        if all(
            value.dtype == state_dict[key].dtype and torch.equal(value, state_dict[key])
            for key, value in folded.items()
        ):
            state_dict.update((key, kept[key].clone()) for key in keys)


def check_shape(name: str, tensor: Tensor, shape: Tuple[int, ...]) -> None:
    """Refuse a tensor of another shape."""
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(f'{name!r} has shape {tuple(tensor.shape)}, but {tuple(shape)} was expected')


def _norms(kind: str) -> Iterator[Tuple[str, Tuple[int, ...]]]:
    """Name and shape of every norm of the backbone."""
    for rule in rules(kind):
        name, _, last = rule.ours.rpartition('.')
        if name.startswith('backbone.') and last == 'bias':
            yield name, rule.shape


def _fold_batch_norm(state_dict: Dict[str, Tensor], name: str) -> Dict[str, Tensor]:
    """Scale and bias of the affine map that a BN computes in eval mode."""
    weight, bias, mean, variance = (
        state_dict[f'{name}.{key}'].double() for key in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = weight / (variance + BN_EPS).sqrt()
    return {
        f'{name}.weight': scale.to(state_dict[f'{name}.weight'].dtype),
        f'{name}.bias': (bias - mean * scale).to(state_dict[f'{name}.bias'].dtype),
    }
