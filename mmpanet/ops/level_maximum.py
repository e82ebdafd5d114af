# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The maximum over levels, with a backward in fewer steps than that of ``torch.maximum``."""

from typing import Any, Sequence, Tuple

import torch
from torch import Tensor

from .fast_arithmetic import are_plain


def maximum(levels: Sequence[Tensor]) -> Tensor:
    """The maximum of tensors of one shape, element by element.

    Where several float32 tensors on a CPU have the maximum, the first of them gets the gradient. ``torch.maximum``
    divides it among them, as here for all other tensors. That takes more steps, and twice the time in the forward and
    the backward. Behind a ReLU nearly all such elements are zero, and the ReLU lets no gradient through there.

    Args:
        levels (Sequence[Tensor]): At least one tensor.

    Returns:
        Tensor: Of the same shape.
    """
    if len(levels) > 1 and are_plain(*levels) and any(level.requires_grad for level in levels):
        return _Maximum.apply(*levels)
    return _maximum(levels)


def _maximum(levels: Sequence[Tensor]) -> Tensor:
    fused = levels[0]
    for level in levels[1:]:
        fused = torch.maximum(fused, level)
    return fused


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *levels: Tensor) -> Tensor:
        fused = _maximum(levels)
        ctx.save_for_backward(*levels, fused)
        return fused

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, ...]:
        *levels, fused = ctx.saved_tensors
        grads = []
        for level in levels[:-1]:
            is_largest = level == fused
            zero = grad.new_zeros(())
            grads.append(torch.where(is_largest, grad, zero))
            grad = torch.where(is_largest, zero, grad)
        return (*grads, grad)
