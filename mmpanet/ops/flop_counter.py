# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Count the arithmetic of a model, whichever operations this processor prefers."""

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Tuple

import torch

from .onednn_linear import HAS_ONEDNN_LINEAR
from .winograd import direct_convolutions

try:
    from torch.utils.flop_counter import FlopCounterMode
except ImportError:  # torch 2.0
    FlopCounterMode = None


@contextmanager
def count_flops() -> Iterator[Optional[Callable[[], int]]]:
    """Count floating-point operations for a while. A multiply-add counts as two.

    Convolutions and matrix products are counted, and nothing else. All convolutions are computed directly meanwhile.

    Yields:
        Callable or None: It returns the number of operations so far. None with torch 2.0, which has no counter.
    """
    if FlopCounterMode is None:
        yield None
        return
    # torch's counter does not know it.
    onednn = {torch.ops.mkldnn._linear_pointwise: _linear_flops} if HAS_ONEDNN_LINEAR else {}
    with direct_convolutions(), FlopCounterMode(display=False, custom_mapping=onednn) as counter:
        yield counter.get_total_flops


def _linear_flops(x_shape: Tuple[int, int], weight_shape: Tuple[int, int], *args: Any, **kwargs: Any) -> int:
    rows, in_features = x_shape
    return 2 * rows * in_features * weight_shape[0]
