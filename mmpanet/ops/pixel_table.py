# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""All pixels of several maps as the rows of one table, and weighted sums of its rows.

Each bin of RoIAlign is a weighted sum of pixels. A tap is one pixel that a bin reads, with its weight.
:mod:`.roi_align`, :mod:`.adaptive_sampling` and :mod:`.roi_align_rotated` compute the taps, and this module sums them.
"""

import math
from typing import Any, Callable, Iterator, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

# This many taps exist at a time. Each takes 8 bytes, and up to about 70 while it is computed. If the maps need
# gradients, all taps are kept for the backward pass.
MAX_TAPS = 2**23
NO_ROW = 2**30  # Behind all rows. With a place in a map added it still is an int32. CUDA checks no numbers below 0.


class Levels:
    """The numbers of each level, or of the levels that are chosen for each RoI.

    Args:
        shapes (Sequence[torch.Size]): Shapes (B, C, H_l, W_l) of the L maps.
        spatial_scales (Sequence[float]): 1 / stride of each level.
        rois (Tensor): (N, 5) or (N, 6), with the image index first.
        chosen (Tensor, optional): The levels of each RoI, (N, S). Without it each RoI is pooled from all levels.

    Attributes:
        scales, heights, widths (Tensor): (1, L), or (N, S) with ``chosen``, in the dtype of the RoIs.
        row_lengths (Tensor): The widths as int32.
        first_rows (Tensor): The row of the table at which the map of each RoI and level begins, int32, (N, L) or
            (N, S).
    """

    def __init__(
        self, shapes: Sequence[torch.Size], spatial_scales: Sequence[float], rois: Tensor, chosen: Optional[Tensor]
    ) -> None:

        def by_level(values: Sequence, dtype: torch.dtype) -> Tensor:
            table = torch.tensor(values, dtype=dtype, device=rois.device)
            return table[None] if chosen is None else table[chosen]

        batch_sizes, _, heights, widths = zip(*shapes)
        self.scales = by_level(spatial_scales, rois.dtype)
        self.heights = by_level(heights, rois.dtype)
        self.widths = by_level(widths, rois.dtype)
        self.row_lengths = by_level(widths, torch.int32)
        # The row of a pixel is the number of rows of all levels and images before it, plus y * W + x.
        pixels = [height * width for height, width in zip(heights, widths)]
        level_rows = [0]
        for batch_size, count in zip(batch_sizes[:-1], pixels[:-1]):
            level_rows.append(level_rows[-1] + batch_size * count)
        image = rois[:, :1].int()
        first_rows = by_level(level_rows, torch.int32) + by_level(pixels, torch.int32) * image
        # The rows behind the last image are those of another level. A row that does not exist is an error.
        exists = (image >= 0) & (image < batch_sizes[0])
        self.first_rows = torch.where(exists, first_rows, torch.full_like(first_rows, NO_ROW))


# Computes the taps of some RoIs, from the RoIs in at least float32, the levels, and whether taps of the same pixel
# shall be merged: indices (int32), weights, and where the taps of each bin begin (int32), (N * L * h * w,). Without the
# last one, indices and weights are (N * L * h * w, T).
TapsOfBins = Callable[[Tensor, Levels, bool], Tuple[Tensor, Tensor, Optional[Tensor]]]
# Counts the taps of each RoI, (N,), on the CPU, where the size of a RoI decides. It may count what else takes memory.
CostPerRoI = Callable[[Tensor, Levels], Tensor]


def pool_bins(
    feats: Sequence[Tensor],
    rois: Tensor,
    output_size: Tuple[int, int],
    spatial_scales: Sequence[float],
    cost: Union[int, CostPerRoI],
    taps_of_bins: TapsOfBins,
    levels: Optional[Tensor] = None,
) -> Tensor:
    """Sum the taps of all bins of all RoIs and levels.

    Each bin is one bag of rows of the table, and one call of ``torch.nn.functional.embedding_bag`` sums all bags.

    Args:
        feats (Sequence[Tensor]): L maps (B, C, H_l, W_l), with any strides.
        rois (Tensor): (N, 5) or (N, 6), with the image index first. As in mmcv, they get no gradient.
        output_size (tuple[int, int]): h and w of the pooled grid.
        spatial_scales (Sequence[float]): 1 / stride of each level.
        cost (int or Callable): T, the number of taps of each bin. If bins differ, what counts those of each RoI, see
            :data:`CostPerRoI`.
        taps_of_bins (Callable): Computes the taps, see :data:`TapsOfBins`.
        levels (Tensor, optional): The levels of each RoI as indices of ``feats``: (N, S) for S levels per RoI, or (N,)
            for one. Defaults to None, which pools each RoI from all levels, fine to coarse.

    Returns:
        Tensor: (N, L, C, h, w), or (N, S, C, h, w) with ``levels``. C is the innermost dimension in memory.

    Raises:
        RuntimeError: If a RoI has the index of an image that is not there. On CUDA an assertion of the kernel fails.
    """
    levels = levels[:, None] if levels is not None and levels.dim() == 1 else levels
    num_levels, (h, w) = len(feats) if levels is None else levels.size(1), output_size
    table = _PixelTable.apply(*feats)
    # Half precision has too few bits for coordinates.
    rois = rois.detach().to(torch.promote_types(table.dtype, torch.float32))
    # Fewer taps make the backward faster. To drop some, the host must know their number, which costs nothing on a CPU
    # only.
    merge = table.requires_grad and table.device.type == 'cpu'
    shapes = [feat.shape for feat in feats]

    def levels_of(part: slice) -> Levels:
        return Levels(shapes, spatial_scales, rois[part], None if levels is None else levels[part])

    with torch.no_grad():
        chunks: Iterator[slice]
        if isinstance(cost, int):
            chunks = _equal_chunks(len(rois), num_levels * h * w * cost)
        else:
            chunks = _chunks(cost(rois, levels_of(slice(None))))
    pooled = []
    for chunk in chunks:
        with torch.no_grad():
            indices, weights, offsets = taps_of_bins(rois[chunk], levels_of(chunk), merge)
        weights = weights.to(table.dtype)
        pooled.append(F.embedding_bag(indices, table, offsets, mode='sum', per_sample_weights=weights))
    pooled = pooled[0] if len(pooled) == 1 else torch.cat(pooled)
    return pooled.view(len(rois), num_levels, h, w, feats[0].size(1)).permute(0, 1, 4, 2, 3)


def _equal_chunks(num_rois: int, taps_per_roi: int) -> Iterator[slice]:
    """The chunks of RoIs that have equally many taps each. Without RoIs there is one chunk."""
    size = max(1, MAX_TAPS // taps_per_roi)
    for begin in range(0, max(1, num_rois), size):
        yield slice(begin, begin + size)


def _chunks(costs: Tensor) -> Iterator[slice]:
    """The chunks of RoIs that cost ``MAX_TAPS`` or less, or of one RoI. Without RoIs there is one chunk."""
    ends = costs.cumsum(0)
    begin = 0
    while True:
        before = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(torch.searchsorted(ends, before + MAX_TAPS, right=True)))
        yield slice(begin, end)
        if end >= len(ends):
            return
        begin = end


class _PixelTable(torch.autograd.Function):
    """A table (R, C) with one row per pixel, made of L maps (B, C, H_l, W_l).

    ``torch.cat`` of permuted maps does the same in twice the time. The backward of neither copies anything.
    """

    @staticmethod
    def forward(ctx: Any, *feats: Tensor) -> Tensor:
        ctx.shapes = [feat.permute(0, 2, 3, 1).shape for feat in feats]
        rows = [math.prod(shape[:-1]) for shape in ctx.shapes]
        table = feats[0].new_empty(sum(rows), feats[0].size(1))
        # Not by table.split(rows): the compiler of torch 2.1 does not let its parts be written.
        begin = 0
        for count, shape, feat in zip(rows, ctx.shapes, feats):
            table[begin : begin + count].view(shape).copy_(feat.permute(0, 2, 3, 1))
            begin += count
        return table

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Tensor, ...]:
        rows = [math.prod(shape[:-1]) for shape in ctx.shapes]
        return tuple(part.view(shape).permute(0, 3, 1, 2) for part, shape in zip(grad.split(rows), ctx.shapes))


def sides(rois: Tensor, levels: Levels, aligned: bool) -> Tuple[Tensor, Tensor]:
    """Where RoIs (N, 5) start and how long they are, in pixels of each level: both (N, L, 2), x first."""
    corners = rois[:, None, 1:] * levels.scales[..., None] - (0.5 if aligned else 0.0)
    start, size = corners[..., :2], corners[..., 2:] - corners[..., :2]
    return start, size if aligned else size.clamp(min=1.0)


def sample_positions(start: Tensor, size: Tensor, num_bins: int, sampling_ratio: int) -> Tensor:
    """Where the samples of all bins lie along one side of each RoI.

    The sum and its order are mmcv's, so that both compute the same positions on a CPU. On CUDA a product and a sum are
    rounded once in mmcv's operator. A side of infinite length has a first bin of NaN, as in mmcv.

    Args:
        start (Tensor): Where the side begins, (...).
        size (Tensor): Its length, (...).
        num_bins (int): Number of bins along the side.
        sampling_ratio (int): s, the number of samples per bin.

    Returns:
        Tensor: (..., bins * s).
    """
    bins, samples = (
        torch.arange(count, dtype=start.dtype, device=start.device) for count in (num_bins, sampling_ratio)
    )
    bin_size = size_of_bins(size, num_bins)[..., None, None]
    position = start[..., None, None] + bins[:, None] * bin_size + (samples + 0.5) * bin_size / sampling_ratio
    return position.flatten(-2)


def size_of_bins(size: Tensor, num_bins: int) -> Tensor:
    """``size / num_bins``, rounded once. On CUDA torch multiplies by the inverse of a number, which rounds twice."""
    return size / torch.full_like(size, num_bins)


def neighbors(position: Tensor, limit: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
    """The two pixels next to each sample along one axis (int32), and the weight of the second.

    The rules for the border are mmcv's. A sample below 0 is moved to 0. A sample from ``limit - 1`` on reads only the
    last pixel.
    """
    position = torch.minimum(position.clamp(min=0), limit - 1)
    low = position.floor()
    high = torch.minimum(low + 1, limit - 1)
    # A RoI of NaN reads pixel 0 with weights of NaN.
    return low.int().clamp(min=0), high.int().clamp(min=0), position - low


def as_bags(indices: Tensor, weights: Tensor, drop_zeros: bool) -> Tuple[Tensor, Tensor, Optional[Tensor]]:
    """The result of :data:`TapsOfBins` from indices and weights of shape (N, L, h, w, T).

    Args:
        indices (Tensor): The rows of the table, int32.
        weights (Tensor): The weights.
        drop_zeros (bool): Drop the taps without weight.
    """
    indices, weights = indices.flatten(0, 3), weights.flatten(0, 3)
    if not drop_zeros:
        return indices, weights, None
    kept = weights != 0
    counts = kept.sum(1, dtype=indices.dtype)
    offsets = (counts.cumsum(0) - counts).to(indices.dtype)
    places = kept.flatten().nonzero().squeeze(1)
    return indices.flatten()[places], weights.flatten()[places], offsets
