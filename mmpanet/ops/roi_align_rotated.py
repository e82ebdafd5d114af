# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""RoIAlign of rotated boxes on several levels, computed by one ``embedding_bag``."""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from .pixel_table import Levels, as_bags, neighbors, pool_bins, sample_positions


def multi_level_roi_align_rotated(
    feats: Sequence[Tensor],
    rois: Tensor,
    output_size: Tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool = True,
    clockwise: bool = False,
    levels: Optional[Tensor] = None,
) -> Tensor:
    """Average RoIAlign of each rotated RoI on all levels, or on levels chosen for each RoI.

    With a fixed sampling ratio s, a bin has s^2 samples on the rotated grid. Each sample is the bilinear mean of four
    pixels, so a bin is a weighted sum of 4 s^2 pixels. :func:`.pixel_table.pool_bins` sums them. On each level the
    result is that of ``mmcv.ops.RoIAlignRotated``.

    Args:
        feats (Sequence[Tensor]): L maps (B, C, H_l, W_l), with any strides.
        rois (Tensor): (N, 6): image index, center x and y, width and height in pixels of the input image, and angle in
            radians. As in mmcv, they get no gradient.
        output_size (tuple[int, int]): h and w of the pooled grid.
        spatial_scales (Sequence[float]): 1 / stride of each level.
        sampling_ratio (int): s, the number of samples per bin along each axis; at least 1.
        aligned (bool): Shift the RoIs by half a pixel, as in mmcv. Defaults to True.
        clockwise (bool): Whether a positive angle turns the RoI clockwise in the image, as in mmcv. Defaults to False.
        levels (Tensor, optional): The levels of each RoI as indices of ``feats``: (N, S) for S levels per RoI, or (N,)
            for one. Defaults to None, which pools each RoI from all levels, fine to coarse.

    Returns:
        Tensor: (N, L, C, h, w), or (N, S, C, h, w) with ``levels``. C is the innermost dimension in memory.
    """

    def taps_of_bins(rois: Tensor, of_levels: Levels, merge: bool) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
        indices, weights = _rotated_taps(rois, of_levels, merge, output_size, sampling_ratio, aligned, clockwise)
        return as_bags(indices, weights, drop_zeros=merge)

    return pool_bins(feats, rois, output_size, spatial_scales, 4 * sampling_ratio**2, taps_of_bins, levels)


def _rotated_taps(
    rois: Tensor,
    levels: Levels,
    merge: bool,
    output_size: Tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
    clockwise: bool,
) -> Tuple[Tensor, Tensor]:
    """Compute the rows of the table that each bin reads, and their weights.

    Returns:
        tuple[Tensor, Tensor]: Indices (int32) and weights, both (N, L, h, w, 4 s^2). With chosen levels, L is S.
    """
    # Centers and sizes (N, L, 2) in pixels of each level.
    center = rois[:, None, 1:3] * levels.scales[..., None] - (0.5 if aligned else 0.0)
    size = rois[:, None, 3:5] * levels.scales[..., None]
    if not aligned:
        size = size.clamp(min=1.0)
    angle = -rois[:, 5] if clockwise else rois[:, 5]
    cos, sin = (value[:, None, None, None] for value in (angle.cos(), angle.sin()))

    # Samples before the rotation, relative to the center: rows (N, L, h s, 1) and columns (N, L, 1, w s).
    column, row = (
        sample_positions(-size[..., i] / 2, size[..., i], num_bins, sampling_ratio)
        for i, num_bins in ((0, output_size[1]), (1, output_size[0]))
    )
    row, column = row[..., :, None], column[..., None, :]
    # Samples (N, L, h s, w s). The y axis of an image points down.
    y = row * cos - column * sin + center[..., 1, None, None]
    x = row * sin + column * cos + center[..., 0, None, None]

    height, width = levels.heights[..., None, None], levels.widths[..., None, None]
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    y_low, y_high, y_fraction = neighbors(y, height)
    x_low, x_high, x_fraction = neighbors(x, width)
    weight = inside.to(y.dtype) / sampling_ratio**2
    high_weight, low_weight = weight * y_fraction, weight * (1 - y_fraction)
    # Four taps of each sample, (4, N, L, h s, w s): upper left, upper right, lower left, lower right.
    weights = torch.stack(
        [
            low_weight * (1 - x_fraction),
            low_weight * x_fraction,
            high_weight * (1 - x_fraction),
            high_weight * x_fraction,
        ]
    )
    y_low, y_high = (
        one * levels.row_lengths[..., None, None] + levels.first_rows[..., None, None] for one in (y_low, y_high)
    )
    indices = torch.stack([y_low + x_low, y_low + x_high, y_high + x_low, y_high + x_high])

    indices, weights = (_by_bins(taps, output_size, sampling_ratio) for taps in (indices, weights))
    if merge:
        _merge_samples(indices, weights)
    return tuple(taps.permute(2, 3, 4, 5, 1, 0).flatten(4) for taps in (indices, weights))


def _by_bins(taps: Tensor, output_size: Tuple[int, int], sampling_ratio: int) -> Tensor:
    """From (4, N, L, h s, w s) to the samples of each bin, (4, s^2, N, L, h, w)."""
    taps = taps.unflatten(4, (output_size[1], sampling_ratio)).unflatten(3, (output_size[0], sampling_ratio))
    return taps.permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 2)


def _merge_samples(indices: Tensor, weights: Tensor) -> None:
    """Give the weights of all samples between the same four pixels to the first of them, in place.

    On the coarse levels most samples of a bin lie between the same pixels.
    """
    first_pixel = indices[0]
    for i in range(indices.size(1) - 1, 0, -1):
        for j in range(i):
            moved = weights[:, i] * (first_pixel[i] == first_pixel[j])
            weights[:, j] += moved
            weights[:, i] -= moved
