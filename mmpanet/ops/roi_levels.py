# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""FPN's rule: which level an RoI belongs to."""

import torch
from torch import Tensor


def fpn_levels(rois: Tensor, num_levels: int, finest_scale: int = 56) -> Tensor:
    """The level that FPN assigns each RoI to: FPN, Equation 1, as in mmdet's ``SingleRoIExtractor``.

    Args:
        rois: (N, 5): index of the image, and x1, y1, x2, y2 in pixels of the input image. Or rotated RoIs, (N, 6):
            index of the image, center x and y, width and height, and angle, as in MMRotate.
        num_levels: The number of levels, L.
        finest_scale: RoIs whose area has a square root below twice this number of pixels belong to the finest level.

    Returns:
        (N,), from 0 for the finest level to L - 1. A box that ends before it begins in one direction belongs to
        level 0.
    """
    rois = rois.to(torch.promote_types(rois.dtype, torch.float32))  # the largest number of float16 is 65504
    sizes = rois[:, 3:5] if rois.size(1) == 6 else rois[:, 3:] - rois[:, 1:3]
    scales = (sizes[:, 0] * sizes[:, 1]).sqrt()
    levels = (scales / finest_scale + 1e-6).log2().floor().clamp(min=0, max=num_levels - 1)
    return levels.long().clamp(min=0)  # NaN, of an inverted box, becomes a number below 0
