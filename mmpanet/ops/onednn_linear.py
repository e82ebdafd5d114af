# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The matrix product of an fc, computed by the library that is faster.

On a CPU, torch computes float32 matrix products with MKL. On AMD's processors with units for all of AVX512 (Zen 5), MKL
uses only half of the vector width. oneDNN, which torch uses for convolutions, uses all of it. torch gives access to
oneDNN's product by an operator of its compiler, ``torch.ops.mkldnn._linear_pointwise``. :func:`linear` calls it on
these processors. With AVX2 alone MKL is faster. On Zen 4, which computes AVX512 in halves, oneDNN gains less than 5 %
of a whole step. On other processors nothing was measured. In all these cases, and where the operator is missing, as in
older versions of torch and in some builds, :func:`linear` is ``torch.nn.functional.linear``.

The environment variable ``MMPANET_ONEDNN_LINEAR`` turns the operator on (1) or off (0) on any processor.
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.utils import digit_version
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fast_arithmetic import AVX512, are_plain, is_wanted

# With fewer multiply-adds the gain is smaller than the cost of the additional Python code.
SMALLEST_PRODUCT = 2**26
SWITCH = 'MMPANET_ONEDNN_LINEAR'


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Multiply as ``F.linear`` does, and faster for large float32 matrices on a CPU.

    Args:
        x (Tensor): (N, ...), with K numbers per row. If it is a grid in channels-last memory, no flattened copy of it
            is kept for the backward.
        weight (Tensor): (M, K).
        bias (Tensor, optional): (M,). Defaults to None.

    Returns:
        Tensor: (N, M). It equals the result of ``F.linear`` up to rounding, and so do the gradients. The faster way has
        no second derivatives (``create_graph=True``); with ``MMPANET_ONEDNN_LINEAR=0`` there are.
    """
    if _is_faster_with_onednn(x, weight):
        return _OneDNNLinear.apply(x, weight, bias)
    return F.linear(x.flatten(1), weight, bias)


def _is_faster_with_onednn(x: Tensor, weight: Tensor) -> bool:
    return (
        HAS_ONEDNN_LINEAR
        and PREFERS_ONEDNN
        and are_plain(x, weight)
        and x.numel() * len(weight) >= SMALLEST_PRODUCT
        and x.numel() == len(x) * weight.size(1)  # F.linear says what does not fit
        and torch.backends.mkldnn.enabled
    )


def _product(a: Tensor, b: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Compute a b^T + bias: (N, M) from (N, K), (M, K) and (M,)."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, 'none', [], '')


def _as_matrix(x: Tensor) -> Tensor:
    """Flatten to (N, K) with contiguous rows, because oneDNN is very slow on transposed matrices with wide rows."""
    return x.flatten(1).contiguous()


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(_as_matrix(x), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()).view(x.shape) if needs_x else None,
            _product(grad.t(), _as_matrix(x).t()) if needs_weight else None,
            grad.sum(0) if needs_bias else None,
        )


def _has_onednn_linear() -> bool:
    """Try whether the operator exists, takes these arguments, and computes the right product."""
    if digit_version(torch.__version__) < digit_version('2.4'):
        return False  # nothing was measured
    a, b = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
    try:
        return torch.equal(_product(a, b), a @ b.t()) and torch.equal(
            _product(b.t(), a.new_ones(5, 4)), b.t() @ a.new_ones(4, 5)
        )
    except (AttributeError, RuntimeError, TypeError):
        return False


HAS_ONEDNN_LINEAR = _has_onednn_linear()
PREFERS_ONEDNN = is_wanted(SWITCH, amd_vectors=[AVX512])
