# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""RoIAlign on several levels, computed by one ``embedding_bag``."""

from typing import Any, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

# A tap is one pixel that a bin reads, with its weight. This many exist at a time. Each takes 8 bytes, and about 8 more
# while it is computed.
MAX_TAPS = 2**23


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
    pixel is its bilinear weight in y times its bilinear weight in x, divided by s^2. All maps together are regarded as
    one table that has one row of C numbers per pixel. Each bin of each RoI and level is then one bag of rows, and one
    call of ``torch.nn.functional.embedding_bag`` sums all bags.

    Args:
        feats (Sequence[Tensor]): L maps (B, C, H_l, W_l), with any strides.
        rois (Tensor): (N, 5): image index, and x1, y1, x2, y2 in pixels of the input image. As in mmcv, they get no
            gradient.
        output_size (tuple[int, int]): h and w of the pooled grid.
        spatial_scales (Sequence[float]): 1 / stride of each level.
        sampling_ratio (int): s, the number of samples per bin along each axis; at least 1.
        aligned (bool): Shift the RoIs by half a pixel, as in mmcv. Defaults to True.
        levels (Tensor, optional): The levels of each RoI as indices of ``feats``: (N, S) for S levels per RoI, or (N,)
            for one. Defaults to None, which pools each RoI from all levels, fine to coarse.

    Returns:
        Tensor: (N, L, C, h, w), or (N, S, C, h, w) with ``levels``. C is the innermost dimension in memory.
    """
    levels = levels[:, None] if levels is not None and levels.dim() == 1 else levels
    num_levels, (h, w) = len(feats) if levels is None else levels.size(1), output_size
    table = _PixelTable.apply(*feats)
    # Fewer taps make the backward faster. To drop some, the host must know their number, which costs nothing on a CPU
    # only.
    merge = table.requires_grad and table.device.type == 'cpu'
    taps_per_roi = num_levels * h * w * (2 * sampling_ratio) ** 2
    pooled = []
    rois_per_chunk = max(1, MAX_TAPS // taps_per_roi)
    for i in range(0, max(1, len(rois)), rois_per_chunk):
        chunk = slice(i, i + rois_per_chunk)
        indices, weights = _taps(
            rois[chunk],
            [feat.shape for feat in feats],
            output_size,
            spatial_scales,
            sampling_ratio,
            aligned,
            table.dtype,
            merge,
            None if levels is None else levels[chunk],
        )
        indices = indices.flatten(0, 3).flatten(1)
        weights = weights.flatten(0, 3).flatten(1)
        offsets = None
        if merge:
            indices, weights, offsets = _drop_zeros(indices, weights)
        pooled.append(F.embedding_bag(indices, table, offsets, mode='sum', per_sample_weights=weights))
    pooled = pooled[0] if len(pooled) == 1 else torch.cat(pooled)
    return pooled.view(len(rois), num_levels, h, w, feats[0].size(1)).permute(0, 1, 4, 2, 3)


class _PixelTable(torch.autograd.Function):
    """A table (R, C) with one row per pixel, made of L maps (B, C, H_l, W_l).

    ``torch.cat`` of permuted maps does the same in twice the time. The backward of neither copies anything.
    """

    @staticmethod
    def forward(ctx: Any, *feats: Tensor) -> Tensor:
        ctx.shapes = [feat.permute(0, 2, 3, 1).shape for feat in feats]
        rows = [shape[:-1].numel() for shape in ctx.shapes]
        table = feats[0].new_empty(sum(rows), feats[0].size(1))
        for part, shape, feat in zip(table.split(rows), ctx.shapes, feats):
            part.view(shape).copy_(feat.permute(0, 2, 3, 1))
        return table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, ...]:
        rows = [shape[:-1].numel() for shape in ctx.shapes]
        return tuple(part.view(shape).permute(0, 3, 1, 2) for part, shape in zip(grad.split(rows), ctx.shapes))


def _drop_zeros(indices: Tensor, weights: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """Drop taps without weight: from bags of a fixed size (bags, taps) to 1D indices, weights and offsets."""
    kept = weights != 0
    counts = kept.sum(1, dtype=indices.dtype)
    offsets = (counts.cumsum(0) - counts).to(indices.dtype)
    places = kept.flatten().nonzero().squeeze(1)
    return indices.flatten()[places], weights.flatten()[places], offsets


@torch.no_grad()
def _taps(
    rois: Tensor,
    shapes: Sequence[torch.Size],
    output_size: Tuple[int, int],
    spatial_scales: Sequence[float],
    sampling_ratio: int,
    aligned: bool,
    dtype: torch.dtype,
    merge: bool,
    levels: Optional[Tensor],
) -> Tuple[Tensor, Tensor]:
    """Compute the rows of the table that each bin reads, and their weights.

    On the coarse levels most taps of a bin share a pixel. With ``merge``, the first of such taps gets the weight of all
    of them, and the others get the weight 0.

    Returns:
        tuple[Tensor, Tensor]: Indices (int32) and weights (``dtype``), both (N, L, h, w, 2s, 2s). With ``levels``, L
        is S.
    """

    def by_level(values: Sequence, dtype: torch.dtype) -> Tensor:
        """One number per level as (1, L), or the numbers of the levels of each RoI as (N, S)."""
        table = torch.tensor(values, dtype=dtype, device=rois.device)
        return table[None] if levels is None else table[levels]

    # Half precision has too few bits for coordinates.
    rois = rois.to(torch.promote_types(dtype, torch.float32))
    batch_sizes, _, heights, widths = zip(*shapes)
    scale = by_level(spatial_scales, rois.dtype)
    offset = 0.5 if aligned else 0.0
    # Corners (N, L, 4) in pixels of each level.
    corners = rois[:, None, 1:] * scale[..., None] - offset
    start, size = corners[..., :2], corners[..., 2:] - corners[..., :2]
    if not aligned:
        size = size.clamp(min=1.0)

    y, y_weight = _axis_taps(start[..., 1], size[..., 1], output_size[0], sampling_ratio, by_level(heights, rois.dtype))
    x, x_weight = _axis_taps(start[..., 0], size[..., 0], output_size[1], sampling_ratio, by_level(widths, rois.dtype))
    if merge:
        y, y_weight = _merge_equal(y, y_weight)
        x, x_weight = _merge_equal(x, x_weight)

    # The row of a pixel is the number of rows of all levels and images before it, plus y * W + x.
    pixels = [height * width for height, width in zip(heights, widths)]
    level_rows = [0]
    for batch_size, count in zip(batch_sizes[:-1], pixels[:-1]):
        level_rows.append(level_rows[-1] + batch_size * count)
    first_row = by_level(level_rows, torch.int32) + by_level(pixels, torch.int32) * rois[:, :1].int()
    width = by_level(widths, torch.int32)
    y = y * width[..., None, None] + first_row[..., None, None]

    indices = y[:, :, :, None, :, None] + x[:, :, None, :, None, :]
    weights = y_weight.to(dtype)[:, :, :, None, :, None] * x_weight.to(dtype)[:, :, None, :, None, :]
    return indices, weights


def _axis_taps(start: Tensor, size: Tensor, num_bins: int, sampling_ratio: int, limit: Tensor) -> Tuple[Tensor, Tensor]:
    """Compute the pixels that the samples of each bin read along one axis.

    The rules for the border are mmcv's. A sample outside [-1, limit] has no weight. A sample below 0 is moved to 0. A
    sample from ``limit - 1`` on reads only the last pixel.

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
    samples = torch.arange(num_bins * sampling_ratio, dtype=start.dtype, device=start.device)
    fractions = (samples + 0.5) / (num_bins * sampling_ratio)
    position = start[..., None] + size[..., None] * fractions
    limit = limit[..., None]
    inside = (position >= -1) & (position <= limit)
    position = torch.minimum(position.clamp(min=0), limit - 1)
    lower = position.floor()
    upper = torch.minimum(lower + 1, limit - 1)
    upper_weight = (position - lower) * inside / sampling_ratio
    lower_weight = (lower + 1 - position) * inside / sampling_ratio

    bins = (num_bins, sampling_ratio)
    indices = torch.cat([lower.unflatten(-1, bins), upper.unflatten(-1, bins)], dim=-1)
    weights = torch.cat([lower_weight.unflatten(-1, bins), upper_weight.unflatten(-1, bins)], dim=-1)
    return indices.int(), weights


def _merge_equal(indices: Tensor, weights: Tensor) -> Tuple[Tensor, Tensor]:
    """Sort taps by pixel, and give the weight of all taps of a pixel to the first of them."""
    indices, order = indices.sort(dim=-1)
    weights = weights.gather(-1, order)
    for i in range(indices.size(-1) - 1, 0, -1):
        moved = weights[..., i] * (indices[..., i] == indices[..., i - 1])
        weights[..., i - 1] += moved
        weights[..., i] -= moved
    return indices, weights
