# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The pixels that RoIAlign reads where the size of a RoI chooses the number of samples (``sampling_ratio=0``).

mmcv then takes as many samples along each axis of a bin as the bin has pixels, rounded up. Samples are therefore at
most one pixel apart, and a bin reads a run of neighboring pixels along each axis. The weights of a run are computed for
each axis alone. A bin reads the product of two runs, and each of its pixels once.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from .pixel_table import Levels, neighbors

MOST_TAPS = 2**31 - 1  # of one RoI: they are counted by an int32


class _Axis(NamedTuple):
    """One axis of all pairs of a RoI and a level; P is their number, N * L."""

    start: Tensor  # where the RoI starts, in pixels of the level, (P,)
    bin_size: Tensor  # in pixels of the level, (P,)
    num_bins: int
    limit: Tensor  # number of pixels of the map, (P,)

    @property
    def samples(self) -> Tensor:
        """Samples per bin, in the dtype of the RoIs. 0 for a RoI without extent, and 1 for one that is not finite."""
        samples = self.bin_size.ceil()
        return torch.where(samples.isfinite(), samples.clamp(min=0), torch.ones_like(samples))

    @property
    def run_length(self) -> Tensor:
        """Pixels per bin, in the dtype of the RoIs: one more than there are samples, or all pixels of the map."""
        return torch.minimum(self.samples + 1, self.limit)


class _Runs(NamedTuple):
    """The pixels that the bins of each pair read along one axis, as int32."""

    length: Tensor  # n, the number of pixels of each bin, (P,)
    first: Tensor  # the first pixel of each bin, (P * bins,)
    weights: Tensor  # of all pixels of all bins, (sum of bins * n,)
    begin: Tensor  # where the weights of each pair begin, (P,)


def adaptive_taps_per_bin(rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool) -> Tensor:
    """Count the taps of a bin, (N, L).

    Raises:
        ValueError: If a RoI is so large that its taps cannot be counted.
    """
    y, x = _axes(rois, levels, output_size, aligned)
    levels_per_roi = levels.scales.size(1)
    # The samples are more than the taps if a RoI is far larger than the map. In float64 no count overflows.
    taps = y.run_length.double() * x.run_length.double() + y.samples.double() + x.samples.double()
    taps = taps.view(len(rois), levels_per_roi)
    too_large = taps.sum(1) * output_size[0] * output_size[1] > MOST_TAPS
    if too_large.any():
        index = int(too_large.nonzero()[0])
        raise ValueError(
            f'rois[{index}]={rois[index].tolist()} has too many pixels for sampling_ratio=0; RoIs must be clipped to '
            'the image, or sampling_ratio must be at least 1'
        )
    return taps.long()


def adaptive_taps(
    rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool
) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute the rows of the table that each bin reads, and their weights.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Indices (int32) and weights of the taps of all bins, and where the taps of each
        bin begin (int32), (N * L * h * w,). With chosen levels, L is S.
    """
    h, w = output_size
    y, x = (_runs(axis) for axis in _axes(rois, levels, output_size, aligned))
    num_pairs = len(y.length)
    row_length, first_row = (
        numbers.expand(len(rois), -1).flatten() for numbers in (levels.row_lengths, levels.first_rows)
    )
    # A line is what a bin reads of one row of the map, in the order pair, bin in y, bin in x, row.
    pair = _repeats(y.length * (h * w))
    y_length, x_length = y.length[pair], x.length[pair]
    place = _count_up(pair, y.length * (h * w))
    bin_index, row = place // y_length, place % y_length
    y_bin, x_bin = bin_index // w, bin_index % w
    line_weight = y.weights[y.begin[pair] + y_bin * y_length + row]
    tap_begin = x_length.cumsum(0, dtype=torch.int32) - x_length
    first_index = (y.first[pair * h + y_bin] + row) * row_length[pair] + first_row[pair] + x.first[pair * w + x_bin]
    first_weight = x.begin[pair] + x_bin * x_length
    # Each line has its taps side by side, both in the table and among the weights of the x axis.
    line = _repeats(x_length)
    tap = torch.arange(len(line), dtype=torch.int32, device=rois.device)
    indices = (first_index - tap_begin)[line] + tap
    weights = line_weight[line] * x.weights[(first_weight - tap_begin)[line] + tap]
    taps = (y.length * x.length)[:, None].expand(num_pairs, h * w).flatten()
    return indices, weights, taps.cumsum(0, dtype=torch.int32) - taps


def _axes(rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool) -> Tuple[_Axis, _Axis]:
    corners = rois[:, None, 1:] * levels.scales[..., None] - (0.5 if aligned else 0.0)
    start, size = corners[..., :2], corners[..., 2:] - corners[..., :2]
    if not aligned:
        size = size.clamp(min=1.0)
    y, x = (
        _Axis(
            start[..., i].flatten(),
            (size[..., i] / num_bins).flatten(),
            num_bins,
            limit.expand(corners.shape[:2]).flatten(),
        )
        for i, num_bins, limit in ((1, output_size[0], levels.heights), (0, output_size[1], levels.widths))
    )
    return y, x


def _runs(axis: _Axis) -> _Runs:
    """Compute the pixels and the weights of all bins along one axis.

    A sample outside [-1, limit] has no weight. The other rules for the border are in :func:`.pixel_table.neighbors`.
    """
    # A RoI without extent has one sample too, which has no weight.
    samples = axis.samples.clamp(min=1).int()
    length, limit = axis.run_length.clamp(min=1).int(), axis.limit
    pair = _repeats(samples * axis.num_bins)
    in_pair = _count_up(pair, samples * axis.num_bins)
    bin_index, in_bin = in_pair // samples[pair], in_pair % samples[pair]
    bin_size, in_bin = axis.bin_size[pair], in_bin.to(axis.start.dtype)
    # The sum and its order are mmcv's, so that both compute the same positions.
    position = axis.start[pair] + bin_index * bin_size + (in_bin + 0.5) * bin_size / samples[pair]
    inside = (position >= -1) & (position <= limit[pair]) & (axis.samples > 0)[pair]
    lower, _, fraction = neighbors(position, limit[pair])

    first_sample = (samples * axis.num_bins).cumsum(0, dtype=torch.int32) - samples * axis.num_bins
    bins = torch.arange(axis.num_bins, dtype=torch.int32, device=pair.device)
    first = lower[(first_sample[:, None] + bins * samples[:, None]).flatten()]
    last_first = (limit.int() - length)[:, None].expand(-1, axis.num_bins).flatten()
    first = torch.minimum(first, last_first)

    begin = (length * axis.num_bins).cumsum(0, dtype=torch.int32) - length * axis.num_bins
    run_begin = begin[pair] + bin_index * length[pair]
    # Rounding can move the last sample to the pixel behind the run. The weight of that pixel is about zero.
    offset, last = lower - first[pair * axis.num_bins + bin_index], length[pair] - 1
    weight = inside / samples.to(fraction.dtype)[pair]
    weights = axis.start.new_zeros(int((length * axis.num_bins).sum()))
    weights.index_add_(0, run_begin + torch.minimum(offset, last), (1 - fraction) * weight)
    weights.index_add_(0, run_begin + torch.minimum(offset + 1, last), fraction * weight)
    return _Runs(length, first, weights, begin)


def _repeats(counts: Tensor) -> Tensor:
    """Each index as often as ``counts`` says, for example 0, 0, 0, 1 for [3, 1]."""
    # Not torch.repeat_interleave(counts): the compiler of torch 2.0 does not know it with one argument.
    return torch.ops.aten.repeat_interleave.Tensor(counts)


def _count_up(owner: Tensor, counts: Tensor) -> Tensor:
    """Count from 0 within each owner, for example 0, 1, 2, 0 for [3, 1]. ``owner`` is :func:`_repeats` of them."""
    begin = counts.cumsum(0, dtype=torch.int32) - counts
    return torch.arange(len(owner), dtype=torch.int32, device=owner.device) - begin[owner]
