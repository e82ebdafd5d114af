# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Which RoIAlign an RoI extractor uses: mmcv's operator or :func:`mmpanet.ops.multi_level_roi_align`."""

import torch
import torch.nn as nn
from mmcv.ops import RoIAlign
from torch import Tensor

from mmpanet.utils.errors import ConfigError

BACKENDS = ('auto', 'roi_align', 'embedding_bag')


def supports_embedding_bag(roi_layer: nn.Module) -> bool:
    """Whether our operator computes what ``roi_layer`` does: an average over a fixed number of samples."""
    return isinstance(roi_layer, RoIAlign) and roi_layer.pool_mode == 'avg' and roi_layer.sampling_ratio >= 1


def check_backend(backend: str, roi_layer: nn.Module) -> None:
    """Raise a ConfigError if ``backend`` is unknown or cannot compute what ``roi_layer`` does."""
    if backend not in BACKENDS:
        raise ConfigError(f'backend={backend!r} must be one of {BACKENDS}')
    if backend == 'embedding_bag' and not supports_embedding_bag(roi_layer):
        raise ConfigError(
            "backend='embedding_bag' needs a roi_layer of type 'RoIAlign' with pool_mode='avg' and "
            f"sampling_ratio >= 1, but it is {roi_layer}; backend='roi_align' takes it"
        )


def uses_embedding_bag(backend: str, roi_layer: nn.Module, feat: Tensor) -> bool:
    """Whether our operator pools feature maps such as ``feat``.

    With 'auto' it does so on every device but CUDA, because mmcv's operator is slow on a CPU and does not exist for
    most other devices, and for bfloat16, which mmcv's operator does not support. In all other cases, and for a
    ``roi_layer`` that it does not support, 'auto' takes mmcv's operator.
    """
    if backend == 'auto':
        return supports_embedding_bag(roi_layer) and (not feat.is_cuda or feat.dtype == torch.bfloat16)
    return backend == 'embedding_bag'
