# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""RoIAlign on several levels, computed by one ``embedding_bag``."""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from .adaptive_sampling import adaptive_cost, adaptive_taps
from .pixel_table import Levels, as_bags, neighbors, pool_bins, sample_positions, sides


def multi_level_roi_align(
    feats: Sequence[Tensor],
    rois: Tensor,
    output_size: Tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool = True,
    levels: Optional[Tensor] = None,
) -> Tensor:
    """Average RoIAlign of each RoI on all levels, or on levels chosen for each RoI.

    With a fixed sampling ratio s, a bin of RoIAlign is a weighted sum of (2s)^2 pixels of the map. The weight of a
    pixel is its bilinear weight in y times its bilinear weight in x, divided by s^2. :func:`.pixel_table.pool_bins`
    sums them. With s = 0 the samples along an axis of a bin are as many as its pixels, rounded up, and
    :mod:`.adaptive_sampling` computes the weights.

    Args:
        feats (Sequence[Tensor]): L maps (B, C, H_l, W_l), with any strides.
        rois (Tensor): (N, 5): image index, and x1, y1, x2, y2 in pixels of the input image. As in mmcv, they get no
            gradient.
        output_size (tuple[int, int]): h and w of the pooled grid.
        spatial_scales (Sequence[float]): 1 / stride of each level.
        sampling_ratio (int): s, the number of samples per bin along each axis, or 0, which leaves it to the size of the
            RoI, as in mmcv.
        aligned (bool): Shift the RoIs by half a pixel, as in mmcv. Defaults to True.
        levels (Tensor, optional): The levels of each RoI as indices of ``feats``: (N, S) for S levels per RoI, or (N,)
            for one. Defaults to None, which pools each RoI from all levels, fine to coarse.

    Returns:
        Tensor: (N, L, C, h, w), or (N, S, C, h, w) with ``levels``. C is the innermost dimension in memory.

    Raises:
        ValueError: With ``sampling_ratio=0``, if a RoI is so much larger than an image that its samples cannot be
            counted.

    Note:
        With ``sampling_ratio=0`` a trace by ``torch.jit`` fails or keeps the sizes of its own RoIs.
    """

    def fixed_taps(rois: Tensor, of_levels: Levels, merge: bool) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        indices, weights = _taps(rois, of_levels, merge, output_size, sampling_ratio, aligned)
        return as_bags(indices, weights, drop_zeros=merge)

    def taps_by_size(rois: Tensor, of_levels: Levels, merge: bool) -> Tuple[Tensor, Tensor, Tensor]:
        return adaptive_taps(rois, of_levels, output_size, aligned)  # no two of a bin are of the same pixel

    def cost_by_size(rois: Tensor, of_levels: Levels) -> Tensor:
        return adaptive_cost(rois, of_levels, output_size, aligned)

    if sampling_ratio:
        return pool_bins(feats, rois, output_size, spatial_scales, (2 * sampling_ratio) ** 2, fixed_taps, levels)
    return pool_bins(feats, rois, output_size, spatial_scales, cost_by_size, taps_by_size, levels)


def _taps(
    rois: Tensor, levels: Levels, merge: bool, output_size: Tuple[int, int], sampling_ratio: int, aligned: bool
) -> Tuple[Tensor, Tensor]:
    """Compute the rows of the table that each bin reads, and their weights.

    On the coarse levels most taps of a bin share a pixel. With ``merge``, the first of such taps gets the weight of all
    of them, and the others get the weight 0.

    Returns:
        tuple[Tensor, Tensor]: Indices (int32) and weights, both (N, L, h, w, (2s)^2). With chosen levels, L is S.
    """
    start, size = sides(rois, levels, aligned)
    y, y_weight = _axis_taps(start[..., 1], size[..., 1], output_size[0], sampling_ratio, levels.heights)
    x, x_weight = _axis_taps(start[..., 0], size[..., 0], output_size[1], sampling_ratio, levels.widths)
    if merge:
        y, y_weight = _merge_equal(y, y_weight)
        x, x_weight = _merge_equal(x, x_weight)

    y = y * levels.row_lengths[..., None, None] + levels.first_rows[..., None, None]
    indices = y[:, :, :, None, :, None] + x[:, :, None, :, None, :]
    weights = y_weight[:, :, :, None, :, None] * x_weight[:, :, None, :, None, :]
    return indices.flatten(4), weights.flatten(4)


def _axis_taps(start: Tensor, size: Tensor, num_bins: int, sampling_ratio: int, limit: Tensor) -> Tuple[Tensor, Tensor]:
    """Compute the pixels that the samples of each bin read along one axis.

    A sample outside [-1, limit] has no weight. The other rules for the border are in :func:`.pixel_table.neighbors`.

    Args:
        start (Tensor): Where the RoI starts, in pixels of the level, (N, L).
        size (Tensor): The extent of the RoI, in pixels of the level, (N, L).
        num_bins (int): Number of bins along this axis.
        sampling_ratio (int): s, the number of samples per bin.
        limit (Tensor): Number of pixels of the map along this axis, (1, L) or (N, L).

    Returns:
        tuple[Tensor, Tensor]: Pixel indices (int32) and weights, both (N, L, bins, 2s): the s lower neighbors, then
        the s upper ones.
    """
    position = sample_positions(start, size, num_bins, sampling_ratio)
    limit = limit[..., None]
    inside = (position >= -1) & (position <= limit)
    lower, upper, fraction = neighbors(position, limit)
    lower_weight = (1 - fraction) * inside / sampling_ratio
    upper_weight = fraction * inside / sampling_ratio

    bins = (num_bins, sampling_ratio)
    indices = torch.cat([lower.unflatten(-1, bins), upper.unflatten(-1, bins)], dim=-1)
    weights = torch.cat([lower_weight.unflatten(-1, bins), upper_weight.unflatten(-1, bins)], dim=-1)
    return indices, weights


def _merge_equal(indices: Tensor, weights: Tensor) -> Tuple[Tensor, Tensor]:
    """Sort taps by pixel, and give the weight of all taps of a pixel to the first of them."""
    indices, order = indices.sort(dim=-1)
    weights = weights.gather(-1, order)
    for i in range(indices.size(-1) - 1, 0, -1):
        moved = weights[..., i] * (indices[..., i] == indices[..., i - 1])
        weights[..., i - 1] += moved
        weights[..., i] -= moved
    return indices, weights
