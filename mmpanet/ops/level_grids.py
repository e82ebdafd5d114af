# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The grids of one level each, out of the grids of all levels."""

from typing import Any, Tuple

import torch
from torch import Tensor

from .fast_arithmetic import are_plain


def grids_of_levels(x: Tensor) -> Tuple[Tensor, ...]:
    """Split as ``x.unbind(1)`` does, with a backward that writes each gradient only once.

    The backward of ``unbind`` stacks the gradients of the levels in the order of their dimensions. Pooling has the
    channels innermost in memory, so its backward would copy the whole stack again.

    Args:
        x (Tensor): (N, L, C, h, w).

    Returns:
        tuple[Tensor]: L views (N, C, h, w).
    """
    if x.requires_grad and are_plain(x):
        return _Unbind.apply(x)
    return x.unbind(1)


class _Unbind(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tuple[Tensor, ...]:
        ctx.like = torch.empty_like(x, device='meta')  # shape and strides, without the memory
        return x.unbind(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        stacked = torch.empty_like(ctx.like, device='cpu')
        for i, grad in enumerate(grads):
            stacked[:, i].copy_(grad)
        return stacked
