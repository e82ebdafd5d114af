# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The tiles of Winograd's algorithm: how grids are cut into them, and how the outputs are put together."""

from typing import NamedTuple, Optional, Tuple

import torch
from torch import Tensor


class Transforms(NamedTuple):
    """The matrices for grids of one size.

    With T_h tiles along the rows, rows of the grid are gathered into tiles of n rows first, which overlap. The columns
    are not gathered: their matrices hold all T_w tiles of a strip. A narrow grid is one strip of all its w columns. A
    wide one has S strips of w = m T_w columns, and a strip reads one column more on each side.
    """

    tile: int  # m
    rows: int  # T_h
    columns: int  # T_w
    strips: int  # S
    kernel: Tensor  # G, (n, 3)
    input_rows: Tensor  # B^T, (n, n)
    input_columns: Tensor  # B^T of all tiles, (n T_w, w), or (n T_w, w + 2) of wide grids
    output_rows: Tensor  # A^T, (m, n)
    output_columns: Tensor  # A^T of all tiles, (w, n T_w)

    @property
    def size(self) -> int:
        """n."""
        return self.tile + 2

    @property
    def width(self) -> int:
        """w."""
        return len(self.output_columns)

    @property
    def halo(self) -> int:
        """The columns that a strip reads on each side of those that it writes."""
        return (self.input_columns.size(1) - self.width) // 2


class Block(NamedTuple):
    """Some grids, and some of their rows of tiles."""

    grids: slice
    first_row: int
    num_rows: int


def gather_rows(x: Tensor, block: Block, by: Transforms, size: int, pad: int, halo: int) -> Tensor:
    """Gather the rows of each tile of a block: (size, w + 2 halo, T_h, S, N, C).

    The first tile begins ``pad`` rows above its outputs, and there are zeros outside of the grid.
    """
    top = block.first_row * by.tile - pad
    bottom = top + (block.num_rows - 1) * by.tile + size
    above = max(-top, 0)
    strips = _strips(x[block.grids, :, max(top, 0) : bottom].permute(2, 3, 0, 1), by, halo)
    tiles = x.new_empty(size, by.width + 2 * halo, block.num_rows, *strips.shape[1:4])
    for i in range(size):
        rows, of_rows = _inside(i - above, by.tile, block.num_rows, len(strips))
        tiles[i, :, of_rows] = strips[rows].permute(4, 0, 1, 2, 3)
        tiles[i, :, : of_rows.start] = 0
        tiles[i, :, of_rows.stop :] = 0
    return tiles


def add_rows(pixels: Tensor, out: Tensor, block: Block, by: Transforms) -> None:
    """Add the gradients (n, w + 2 halo, T_h, S, N, C) of a block's tiles to those of the grids, (N, h, W, C).

    It is the transposed operation of :func:`gather_rows` of n rows with ``pad=1``.
    """
    top = block.first_row * by.tile - 1
    of_block = out[block.grids]
    for i, of_row in enumerate(pixels):
        rows, of_rows = _inside(top + i, by.tile, block.num_rows, out.size(1))
        for strip in range(by.strips):
            left = strip * by.width - by.halo
            right = min(left + len(of_row), out.size(2))
            inside = of_row[max(-left, 0) : right - left, of_rows, strip]
            of_block[:, rows, max(left, 0) : right].add_(inside.permute(2, 1, 0, 3))


def _strips(rows: Tensor, by: Transforms, halo: int) -> Tensor:
    """Cut rows (h, w, N, C) into strips (h, S, N, C, w + 2 halo), with zeros outside of the grid."""
    if by.strips == 1 and not halo:
        return rows.permute(0, 2, 3, 1)[:, None]
    padded = rows.new_zeros(len(rows), by.strips * by.width + 2 * halo, *rows.shape[2:])
    padded[:, halo : halo + rows.size(1)] = rows
    return padded.unfold(1, by.width + 2 * halo, by.width)


def _inside(first: int, step: int, count: int, limit: int) -> Tuple[slice, slice]:
    """Those of ``count`` places, from the first one on, that are in [0, limit): the places and their numbers."""
    start = min(max(-(first // step), 0), count)
    stop = max(min(-((first - limit) // step), count), start)
    return slice(first + start * step, max(first + stop * step, 0), step), slice(start, stop)


def scatter_rows(pixels: Tensor, bias: Optional[Tensor], out: Tensor, block: Block) -> None:
    """Write the outputs (m, w, T_h, S, N, C') of a block into (N, h, W, C'), but for those beyond the border."""
    tile, width, num_rows, num_strips = pixels.shape[:4]
    top = block.first_row * tile
    of_block = out[block.grids, top : top + num_rows * tile]
    for i, of_row in enumerate(pixels):
        for strip in range(num_strips):
            of_tiles = of_block[:, i::tile, strip * width : (strip + 1) * width]
            pixels_inside = of_row[: of_tiles.size(2), : of_tiles.size(1), strip].permute(2, 1, 0, 3)
            if bias is None:
                of_tiles.copy_(pixels_inside)
            else:
                torch.add(pixels_inside, bias, out=of_tiles)
