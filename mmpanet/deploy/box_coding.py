# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Decoding of boxes for a batch of images whose sizes are tensors."""

from typing import Any

import torch
from torch import Tensor

from mmpanet.models.inclusive_boxes import InclusiveBBoxCoder


def decode_boxes(coder: Any, priors: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
    """Boxes from priors and what a head predicts for them, within the images.

    Args:
        coder (Any): mmdet's or mmpanet's box coder. It decodes without a limit; the limit is applied here, because
            mmdet's coders take it as numbers, which a graph would keep as constants.
        priors (Tensor): (B, n, 4), anchors or RoIs, or (B, n, 2), points.
        deltas (Tensor): (B, n, 4 * classes).
        sizes (Tensor): (B, 2), height and width of each image in pixels.

    Returns:
        Tensor: (B, n, 4 * classes), x1, y1, x2, y2 for each class.
    """
    batch, depth = deltas.shape[0], deltas.shape[2]
    decoded = coder.decode(priors.reshape(-1, priors.shape[2]), deltas.reshape(-1, depth), max_shape=None)
    decoded = decoded.view(batch, -1, depth)
    if not getattr(coder, 'clip_border', True):
        return decoded
    last = 1 if isinstance(coder, InclusiveBBoxCoder) else 0  # such a box ends with its last pixel
    edge = (sizes.flip(1).to(decoded) - last).repeat(1, depth // 2)[:, None]
    return torch.minimum(decoded.clamp(min=0), edge)
