# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Which RoIAlign an RoI extractor uses: mmcv's operator or one of :mod:`mmpanet.ops`."""

from typing import Sequence, Tuple, Type

import torch
import torch.nn as nn
from mmcv.ops import RoIAlign
from torch import Tensor

from mmpanet.utils.errors import ConfigError

BACKENDS = ('auto', 'roi_align', 'embedding_bag')


def supports_embedding_bag(roi_layer: nn.Module, kind: Type[nn.Module] = RoIAlign) -> bool:
    """Whether our operator for ``kind``, ``RoIAlign`` or ``RoIAlignRotated``, computes what ``roi_layer`` does.

    Our operators take the average, and the one for rotated RoIs needs a fixed number of samples. A subclass may do
    anything.
    """
    averages = getattr(roi_layer, 'pool_mode', 'avg') == 'avg'
    return type(roi_layer) is kind and averages and roi_layer.sampling_ratio >= (0 if kind is RoIAlign else 1)


def check_backend(backend: str, roi_layer: nn.Module, kind: Type[nn.Module] = RoIAlign) -> None:
    """Raise a ConfigError if ``backend`` is unknown or cannot compute what ``roi_layer`` does."""
    if backend not in BACKENDS:
        raise ConfigError(f'backend={backend!r} must be one of {BACKENDS}')
    if backend == 'embedding_bag' and not supports_embedding_bag(roi_layer, kind):
        settings = "pool_mode='avg'" if kind is RoIAlign else 'sampling_ratio >= 1'
        raise ConfigError(
            f"backend='embedding_bag' needs a roi_layer of type {kind.__name__!r} with {settings}, but it is "
            f"{roi_layer}; backend='roi_align' takes it"
        )


def uses_embedding_bag(backend: str, roi_layer: nn.Module, feat: Tensor, kind: Type[nn.Module] = RoIAlign) -> bool:
    """Whether our operator pools feature maps such as ``feat``.

    With 'auto' it does so on every device but CUDA, because mmcv's operator is slow on a CPU and does not exist for
    most other devices. On CUDA it does so for bfloat16, which mmcv's operator does not support, with a fixed number of
    samples. In all other cases, for a ``roi_layer`` that it does not support, and with adaptive sampling in a trace by
    ``torch.jit``, 'auto' takes mmcv's operator.
    """
    if backend != 'auto':
        return backend == 'embedding_bag'
    if not supports_embedding_bag(roi_layer, kind):
        return False
    fixed = roi_layer.sampling_ratio >= 1
    if feat.is_cuda:
        return fixed and feat.dtype == torch.bfloat16
    return fixed or not torch.jit.is_tracing()  # a trace would keep the number of samples of its own RoIs


def for_mmcv(feats: Sequence[Tensor], rois: Tensor) -> Tuple[Tuple[Tensor, ...], Tensor]:
    """The maps and the RoIs in the form in which mmcv's operators read them correctly.

    They misread what is not contiguous. They compute in the precision of the maps, and half precision has too few bits
    for coordinates: from 1024 on, float16 has whole numbers only. Such maps are copied to float32.
    """
    dtype = torch.promote_types(feats[0].dtype, torch.float32)
    return tuple(feat.to(dtype).contiguous() for feat in feats), rois.to(feats[0].device, dtype).contiguous()
