# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Which RoIAlign a RoI extractor uses: mmcv's op or ours."""

import torch
import torch.nn as nn
from mmcv.ops import RoIAlign
from torch import Tensor

BACKENDS = ('auto', 'roi_align', 'embedding_bag')


def bag_possible(roi_layer: nn.Module) -> bool:
    """Whether our op can stand in: an average over a fixed number of samples."""
    return isinstance(roi_layer, RoIAlign) and roi_layer.pool_mode == 'avg' and roi_layer.sampling_ratio >= 1


def check_backend(backend: str, roi_layer: nn.Module) -> None:
    """Raise a ValueError if ``backend`` is unknown or cannot do the layer."""
    if backend not in BACKENDS:
        raise ValueError(f'backend={backend!r} must be one of {BACKENDS}')
    if backend == 'embedding_bag' and not bag_possible(roi_layer):
        raise ValueError(
            "backend='embedding_bag' needs a roi_layer of type 'RoIAlign' "
            "with pool_mode='avg' and sampling_ratio >= 1, but it is "
            f"{roi_layer}; backend='roi_align' takes it"
        )


def uses_bag(backend: str, roi_layer: nn.Module, feat: Tensor) -> bool:
    """Whether our op pools maps like ``feat``.

    'auto' takes it on the CPU, and in bfloat16, which mmcv's op does not
    know, wherever the layer allows it.
    """
    if backend == 'auto':
        return bag_possible(roi_layer) and (not feat.is_cuda or feat.dtype == torch.bfloat16)
    return backend == 'embedding_bag'
