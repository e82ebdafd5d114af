# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The product of a fc in whichever library does it faster.

torch leaves float32 matrix products on the CPU to MKL, which on processors
other than Intel's takes half of their vector width. oneDNN, which does
torch's convs, takes all of it. torch reaches it by an operator of its
compiler, ``torch.ops.mkldnn._linear_pointwise``, which may not be in every
build: without it everything here is ``F.linear``.
"""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Multiply-adds below which the difference is not worth a call in Python.
SMALLEST_PRODUCT = 2**26


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """``F.linear`` of large float32 matrices, fast on every x86 processor.

    Args:
        x (Tensor): (N, ...), K numbers each; of a grid in channels-last
            memory no flat copy is kept for the backward.
        weight (Tensor): (M, K).
        bias (Tensor, optional): (M, ).

    Returns:
        Tensor: (N, M); the same up to rounding, backward too.
    """
    if _onednn_pays(x, weight):
        return _OneDNNLinear.apply(x, weight, bias)
    return F.linear(x.flatten(1), weight, bias)


def _onednn_pays(x: Tensor, weight: Tensor) -> bool:
    if (
        not HAS_ONEDNN_LINEAR
        or _is_traced()
        or not (x.device.type == weight.device.type == 'cpu')
        or not (x.dtype == weight.dtype == torch.float32)
    ):
        return False
    return (
        x.numel() * len(weight) >= SMALLEST_PRODUCT
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled('cpu')
    )


def _is_traced() -> bool:
    """Whether a graph is being made, which is to hold public operators."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def _product(a: Tensor, b: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """a b^T + bias: (N, K), (M, K), (M, ) to (N, M)."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, 'none', [], '')


def _matrix(x: Tensor) -> Tensor:
    """(N, K), row by row: oneDNN is very slow on transposes of wider rows."""
    return x.flatten(1).contiguous()


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(_matrix(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()).view(x.shape) if needs_x else None,
            _product(grad.t(), _matrix(x).t()) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _has_onednn_linear() -> bool:
    """Try it: the operator is there, takes these arguments, and is right."""
    a, b = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        _is_traced(), torch.is_autocast_enabled('cpu')  # as torch 2.4 has them
        return torch.equal(_product(a, b), a @ b.t()) and torch.equal(
            _product(b.t(), a.new_ones(5, 4)), b.t() @ a.new_ones(4, 5)
        )
    except (AttributeError, RuntimeError, TypeError):
        return False


HAS_ONEDNN_LINEAR = _has_onednn_linear()
