# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The pixels that RoIAlign reads where the size of a RoI chooses the number of samples (``sampling_ratio=0``).

mmcv then takes as many samples along each axis of a bin as the bin has pixels, rounded up. Samples are therefore at
most one pixel apart, and a bin reads a run of neighboring pixels along each axis. The weights of a run are computed for
each axis alone. A bin reads the product of two runs, and each of its pixels once.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor

from .pixel_table import Levels, neighbors, sides, size_of_bins

MOST_TAPS = 2**31 - 1  # of one RoI: they are counted by an int32


class _Axis(NamedTuple):
    """One axis of all pairs of a RoI and a level; P is their number, N * L."""

    start: Tensor  # where the RoI starts, in pixels of the level, (P,)
    bin_size: Tensor  # in pixels of the level, (P,)
    num_bins: int
    limit: Tensor  # number of pixels of the map, (P,)
    samples: Tensor  # of each bin: 0 for a RoI without extent, and 1 for one that is not finite, (P,)

    @property
    def run_length(self) -> Tensor:
        """Pixels per bin: one more than there are samples, or all pixels of the map."""
        return torch.minimum(self.samples + 1, self.limit)


class _Runs(NamedTuple):
    """The pixels that the bins of each pair read along one axis. All but the weights are int32."""

    length: Tensor  # n, the number of pixels of each bin, (P,)
    first: Tensor  # the first pixel of each bin, (P * bins,)
    weights: Tensor  # of all pixels of all bins, (sum of bins * n,)
    begin: Tensor  # where the weights of each pair begin, (P,)


class _Lines(NamedTuple):
    """What the bins read of one row of a map: side by side in the table, and among the weights of the x axis."""

    length: Tensor  # number of taps, int32
    first_row: Tensor  # the row of the table that the first tap reads, int32
    first_weight: Tensor  # which of the weights of the x axis the first tap has, int32
    weight: Tensor  # of the line


def adaptive_cost(rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool) -> Tensor:
    """Count the taps of each RoI and, because a RoI may be far larger than the map, its samples along each axis.

    Returns:
        Tensor: (N,), int64, on the CPU.

    Raises:
        ValueError: If a RoI is so large that its taps cannot be counted.
    """
    y, x = _axes(rois, levels, output_size, aligned)
    # In float64 no count overflows. Not every device has it.
    counts = torch.stack([y.run_length, x.run_length, y.samples, x.samples]).cpu().double()
    y_taps, x_taps, y_samples, x_samples = counts.view(4, len(rois), levels.scales.size(1))
    h, w = output_size
    cost = (y_taps * x_taps * (h * w) + y_samples * h + x_samples * w).sum(1)
    if (cost > MOST_TAPS).any():
        index = int(cost.argmax())
        raise ValueError(
            f'rois[{index}]={rois[index].tolist()} has too many pixels for sampling_ratio=0; RoIs must be clipped to '
            'the image, or sampling_ratio must be at least 1'
        )
    return cost.long()


def adaptive_taps(
    rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool
) -> Tuple[Tensor, Tensor, Tensor]:
    """Compute the rows of the table that each bin reads, and their weights.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Indices (int32) and weights of the taps of all bins, and where the taps of each
        bin begin (int32), (N * L * h * w,). With chosen levels, L is S.
    """
    y, x = (_runs(axis) for axis in _axes(rois, levels, output_size, aligned))
    num_bins = output_size[0] * output_size[1]
    taps = (y.length * x.length)[:, None].expand(-1, num_bins).flatten()
    lines = _lines(y, x, levels, output_size)
    begin = _begins(lines.length)
    line = _owners(lines.length)
    tap = torch.arange(len(line), dtype=torch.int32, device=rois.device)
    weights = x.weights[(lines.first_weight - begin)[line].add_(tap)].mul_(lines.weight[line])
    return (lines.first_row - begin)[line].add_(tap), weights, _begins(taps)


def _lines(y: _Runs, x: _Runs, levels: Levels, output_size: Tuple[int, int]) -> _Lines:
    """The lines of all bins, in the order pair, bin in y, bin in x, row of the map."""
    h, w = output_size
    num_rois = len(y.length) // levels.scales.size(1)
    row_length, first_row = (
        numbers.expand(num_rois, -1).flatten() for numbers in (levels.row_lengths, levels.first_rows)
    )
    counts = y.length * (h * w)
    pair = _owners(counts)
    y_length, length = y.length[pair], x.length[pair]
    place = _count_up(pair, counts)
    bin_index, row = place // y_length, place % y_length
    y_bin, x_bin = bin_index // w, bin_index % w
    return _Lines(
        length,
        (y.first[pair * h + y_bin] + row) * row_length[pair] + first_row[pair] + x.first[pair * w + x_bin],
        x.begin[pair] + x_bin * length,
        y.weights[y.begin[pair] + y_bin * y_length + row],
    )


def _axes(rois: Tensor, levels: Levels, output_size: Tuple[int, int], aligned: bool) -> Tuple[_Axis, _Axis]:
    start, size = sides(rois, levels, aligned)
    y, x = (
        _axis(start[..., i].flatten(), size[..., i].flatten(), num_bins, limit.expand(size.shape[:2]).flatten())
        for i, num_bins, limit in ((1, output_size[0], levels.heights), (0, output_size[1], levels.widths))
    )
    return y, x


def _axis(start: Tensor, size: Tensor, num_bins: int, limit: Tensor) -> _Axis:
    bin_size = size_of_bins(size, num_bins)
    samples = bin_size.float().ceil().to(bin_size.dtype)  # mmcv rounds to float32 first
    samples = torch.where(bin_size.isfinite(), samples.clamp(min=0), torch.ones_like(samples))
    return _Axis(start, bin_size, num_bins, limit, samples)


def _runs(axis: _Axis) -> _Runs:
    """Compute the pixels and the weights of all bins along one axis.

    A sample outside [-1, limit] has no weight. The other rules for the border are in :func:`.pixel_table.neighbors`.
    """
    limit = axis.limit
    # A RoI without extent has one sample too, which has no weight.
    samples, length = axis.samples.clamp(min=1).int(), axis.run_length.int()
    counts = samples * axis.num_bins
    begin, first_sample = _begins(length * axis.num_bins), _begins(counts)
    pair = _owners(counts)
    place, samples_of_bin = _count_up(pair, counts), samples[pair]
    bin_index = place // samples_of_bin
    sample = (place - bin_index * samples_of_bin).to(limit.dtype)
    bin_size, samples_of_bin = axis.bin_size[pair], samples_of_bin.to(limit.dtype)
    # The sum and its order are mmcv's, so that both compute the same positions.
    position = axis.start[pair] + bin_index * bin_size + (sample + 0.5) * bin_size / samples_of_bin
    inside = (position >= -1) & (position <= limit[pair]) & (axis.samples > 0)[pair]
    lower, _, fraction = neighbors(position, limit[pair])
    share = inside / samples_of_bin

    bins = torch.arange(axis.num_bins, dtype=torch.int32, device=pair.device)
    first = lower[(first_sample[:, None] + bins * samples[:, None]).flatten()]
    last_first = (limit.int() - length)[:, None].expand(-1, axis.num_bins).flatten()
    first = torch.minimum(first, last_first)

    run_begin = begin[pair] + bin_index * length[pair]
    # Rounding can move the last sample to the pixel behind the run. The weight of that pixel is about zero.
    offset, last = lower - first[pair * axis.num_bins + bin_index], length[pair] - 1
    weights = axis.start.new_zeros(int((length * axis.num_bins).sum()))
    weights.index_add_(0, run_begin + torch.minimum(offset, last), (1 - fraction) * share)
    weights.index_add_(0, run_begin + torch.minimum(offset + 1, last), fraction * share)
    return _Runs(length, first, weights, begin)


def _begins(counts: Tensor) -> Tensor:
    """Where each owner begins if they follow each other, for example 0, 3 for [3, 1]."""
    return counts.cumsum(0, dtype=torch.int32) - counts


def _owners(counts: Tensor) -> Tensor:
    """Each index as often as ``counts`` says, for example 0, 0, 0, 1 for [3, 1]."""
    # Not torch.repeat_interleave(counts): the compiler of torch 2.0 does not know it with one argument.
    return torch.ops.aten.repeat_interleave.Tensor(counts).long()  # torch would convert an int32 for each use


def _count_up(owner: Tensor, counts: Tensor) -> Tensor:
    """Count from 0 within each owner, for example 0, 1, 2, 0 for [3, 1]. ``owner`` is :func:`_owners` of them."""
    return torch.arange(len(owner), dtype=torch.int32, device=owner.device) - _begins(counts)[owner]
