# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The grids of each level, with a backward that writes their gradients once."""

from typing import Any, Tuple

import torch
from torch import Tensor

from .fast_arithmetic import are_plain


def unbind_levels(x: Tensor) -> Tuple[Tensor, ...]:
    """Take pooled grids apart into those of each level, as ``x.unbind(1)`` does.

    The backward of ``unbind`` stacks the gradients, and the pooling then copies the stack into its own memory format.
    For grids whose channels come last in memory, float32 and on a CPU, this backward writes them into it at once.

    Args:
        x (Tensor): (N, L, C, h, w).

    Returns:
        tuple[Tensor]: L views of x, (N, C, h, w).
    """
    if are_plain(x) and x.requires_grad and x.permute(0, 1, 3, 4, 2).is_contiguous():
        return _UnbindLevels.apply(x)
    return x.unbind(1)


class _UnbindLevels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tuple[Tensor, ...]:
        return x.unbind(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        num_rois, channels, height, width = grads[0].shape
        of_x = grads[0].new_empty(num_rois, len(grads), height, width, channels)
        for i, grad in enumerate(grads):
            of_x[:, i] = grad.permute(0, 2, 3, 1)
        return of_x.permute(0, 1, 4, 2, 3)
