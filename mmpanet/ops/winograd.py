# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A 3x3 convolution of maps or RoI grids with a third of the multiplications, or fewer.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), Section 4.1: a tile of m x m outputs of
a 3x3 convolution reads n x n inputs, with n = m + 2. If the tile and the kernel are transformed by small matrices, n^2
products take the place of 9 m^2. The transforms cost additions, so the gain depends on the processor. On AMD's
processors with AVX2 alone, and on Zen 4, which computes AVX512 in halves, the products are what takes the time, and
:func:`conv3x3` is faster than oneDNN's convolution. With units for all of AVX512 oneDNN's convolution is faster, and
:func:`conv3x3` calls it. On other processors nothing was measured, and it does the same.

The environment variable ``MMPANET_WINOGRAD`` turns it on (1) or off (0) on any processor.
"""

from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Iterator, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fast_arithmetic import AVX2, HALVED_AVX512, are_plain, is_wanted
from .winograd_matrices import best_tile, matrices_of_axis, matrices_of_tile
from .winograd_tiles import Block, Transforms, add_rows, gather_rows, scatter_rows

SWITCH = 'MMPANET_WINOGRAD'
# C times C'. With fewer channels the transforms of the grids cost more than they save. In training half as many are
# enough, because gradients save more.
SMALLEST_KERNEL = 128 * 256
# With fewer pixels the transform of the kernel does. Measured with one and two threads.
FEWEST_PIXELS_PER_THREAD = 1024
# Wider grids are cut into strips, because the matrices of all their columns would be mostly zero.
WIDEST = 32
# Tiles per strip. The fewest zeros beyond the border decide.
TILES_PER_STRIP = (3, 4)
# The tile of strips: as fast as 5, and rounded less.
TILE_OF_STRIPS = 4
# The tiles of grids, of which the one with the fewest products is taken. Outputs need more digits than gradients.
TILES = (4, 5)
TILES_OF_GRADIENTS = (4, 5, 7)
# Numbers per block of transformed grids. Smaller blocks stay in the cache between the steps. Larger ones read the
# kernel less often. Of 2, 4, 8 and 16 Mi this is the fastest in training, on Zen 4 and on Zen 4 that is held to AVX2.
BLOCK = 8 * 2**20


def conv3x3(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Convolve as ``F.conv2d(x, weight, bias, padding=1)`` does, and faster for many pixels on some processors.

    Args:
        x (Tensor): Maps or grids (N, C, h, w). The fastest memory format is channels-last.
        weight (Tensor): (C', C, 3, 3).
        bias (Tensor, optional): (C',). Defaults to None.

    Returns:
        Tensor: (N, C', h, w). It equals the result of ``F.conv2d`` up to rounding, and so do the gradients. These
        errors are root mean squares in comparison with float64, for 256 channels: 1e-6 to 3e-6 of the result, up to
        2e-6 of the gradients of maps, and 1.4e-5 of those of grids with at most 32 columns. ``F.conv2d`` has 2e-7 to
        1e-6. Winograd's algorithm has no second derivatives (``create_graph=True``). Within
        :func:`direct_convolutions` there are.
    """
    if _is_faster_by_winograd(x, weight, bias):
        return _in_format_of(x, _Conv3x3.apply(x, weight, bias))
    return F.conv2d(x, weight, bias, padding=1)


@contextmanager
def direct_convolutions() -> Iterator[None]:
    """Compute all convolutions directly for a while, for example to count their arithmetic."""
    global PREFERS_WINOGRAD
    before, PREFERS_WINOGRAD = PREFERS_WINOGRAD, False
    try:
        yield
    finally:
        PREFERS_WINOGRAD = before


def _is_faster_by_winograd(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> bool:
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return (
        PREFERS_WINOGRAD
        and are_plain(x, weight, *([] if bias is None else [bias]))
        and not _rounds_products()
        # torch has the better message for what does not fit.
        and (x.dim(), x.size(1), weight.shape[2:]) == (4, weight.size(1), (3, 3))
        and (bias is None or bias.shape == weight.shape[:1])
        and weight.size(0) * weight.size(1) >= (SMALLEST_KERNEL // 2 if trains else SMALLEST_KERNEL)
        and len(x) * x.size(2) * x.size(3) >= FEWEST_PIXELS_PER_THREAD * torch.get_num_threads()
        # The forward pass of wide maps gains no more than the copy into their memory format costs.
        and (x.size(3) <= WIDEST or trains)
    )


def _rounds_products() -> bool:
    """Whether the user lets torch multiply matrices in bfloat16, which does not hold for its convolutions."""
    try:
        return torch.get_float32_matmul_precision() == 'medium'
    except RuntimeError:  # from torch 2.9 on, for a user of the other settings of precision
        return True


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        # The forward ran without autocast, so the gradients are float32, whoever calls for them.
        with torch.autocast('cpu', enabled=False):
            of_x, of_weight = _gradients(x, weight, grad, needs_x, needs_weight)
            return of_x, of_weight, grad.sum((0, 2, 3)) if needs_bias else None


def _convolve(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None) -> Tensor:
    """Convolve (N, C, h, w) to (N, C', h, w), channels-last."""
    num_grids, in_channels, height, width = x.shape
    channels = len(weight)
    by = _transforms(height, width, TILES)
    size = by.size
    kernel = _transform_kernel(weight, by)
    # No view: if a ReLU changes a view in place, its backward copies the gradients into another memory format.
    shape = num_grids, channels, height, width
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    for block in _blocks(x, channels, by):
        tiles = _transform_input(x, block, by).view(size**2, -1, in_channels)
        products = torch.bmm(tiles, kernel).view(size, size * by.columns, -1)
        pixels = _multiply_back(products, by.output_columns, by.output_rows)
        pixels = pixels.view(by.tile, by.width, block.num_rows, by.strips, -1, channels)
        scatter_rows(pixels, bias, out.permute(0, 2, 3, 1), block)
    return out


def _in_format_of(x: Tensor, result: Tensor) -> Tensor:
    """Give a result the memory format of x, as torch does.

    mmcv's RoIAlign for CPUs reads maps that are channels-last as if they were not, without an error. torch's
    convolutions are slow in the backward pass if the format changes from layer to layer.
    """
    channels_come_last = x.stride(1) == 1 and not x.is_contiguous()
    return result if channels_come_last else result.contiguous()


def _gradients(
    x: Tensor, weight: Tensor, grad: Tensor, needs_x: bool, needs_weight: bool
) -> Tuple[Optional[Tensor], Optional[Tensor]]:
    """The gradients of x (N, C, h, w) and of the weight (C', C, 3, 3).

    All steps of :func:`_convolve` are linear, so their transposed matrices give them, in the reverse order.
    """
    channels, in_channels = weight.shape[:2]
    height, width = x.shape[2:]
    by = _transforms(height, width, TILES_OF_GRADIENTS)
    size = by.size
    if needs_x:
        kernel = _transform_kernel(weight, by).transpose(1, 2)
        of_x = x.new_zeros(len(x), height, width, in_channels)
    of_kernel = None
    for block in _blocks(x, channels, by) if needs_x or needs_weight else ():
        rows = gather_rows(grad, block, by, by.tile, 0, 0)
        products = _multiply(rows, by.output_rows.t(), by.output_columns.t()).view(size**2, -1, channels)
        if needs_weight:
            tiles = _transform_input(x, block, by).view(size**2, -1, in_channels).transpose(1, 2)
            of_kernel = torch.bmm(tiles, products) if of_kernel is None else of_kernel.baddbmm_(tiles, products)
        if needs_x:
            of_tiles = torch.bmm(products, kernel).view(size, size * by.columns, -1)
            pixels = _multiply_back(of_tiles, by.input_columns.t(), by.input_rows.t())
            pixels = pixels.view(size, by.input_columns.size(1), block.num_rows, by.strips, -1, in_channels)
            add_rows(pixels, of_x, block, by)
    of_weight = None
    if needs_weight:
        of_weight = torch.zeros_like(weight) if of_kernel is None else _transform_kernel_back(of_kernel, by)
    return _in_format_of(x, of_x.permute(0, 3, 1, 2)) if needs_x else None, of_weight


def _transform_kernel_back(of_kernel: Tensor, by: Transforms) -> Tensor:
    """The gradient (C', C, 3, 3) of the weight from that of G g G^T, (n^2, C, C')."""
    rows = of_kernel.view(by.size, by.size, -1)
    of_weight = _multiply(rows, by.kernel.t(), by.kernel.t())
    return of_weight.view(3, 3, *of_kernel.shape[1:]).permute(3, 2, 0, 1).contiguous()


def _transform_kernel(weight: Tensor, by: Transforms) -> Tensor:
    """G g G^T: (n^2, C, C')."""
    channels, in_channels = weight.shape[:2]
    kernel = _multiply(weight.permute(2, 3, 1, 0).contiguous().view(3, 3, -1), by.kernel, by.kernel)
    return kernel.view(-1, in_channels, channels)


def _transform_input(x: Tensor, block: Block, by: Transforms) -> Tensor:
    """B^T d B of the tiles of a block: (n, n T_w, T_h S N C)."""
    return _multiply(gather_rows(x, block, by, by.size, 1, by.halo), by.input_rows, by.input_columns)


def _multiply(rows: Tensor, row_matrix: Tensor, column_matrix: Tensor) -> Tensor:
    """Multiply the rows of (rows, columns, ...), and then the columns."""
    width = rows.size(1)
    transformed = torch.mm(row_matrix, rows.view(len(rows), -1)).view(len(row_matrix), width, -1)
    return _multiply_each(column_matrix, transformed)


def _multiply_back(tiles: Tensor, column_matrix: Tensor, row_matrix: Tensor) -> Tensor:
    """Multiply the columns of (rows, columns, ...), and then the rows: (rows, columns times the rest)."""
    return torch.mm(row_matrix, _multiply_each(column_matrix, tiles).view(len(tiles), -1))


def _multiply_each(matrix: Tensor, batch: Tensor) -> Tensor:
    """Compute ``matrix @ batch``. For such flat matrices one product after the other is faster than ``torch.bmm``."""
    out = batch.new_empty(len(batch), len(matrix), batch.size(2))
    for one, result in zip(batch, out):
        torch.mm(matrix, one, out=result)
    return out


def _blocks(x: Tensor, channels: int, by: Transforms) -> Iterator[Block]:
    """Blocks of about equal size, of at most :data:`BLOCK` numbers per transformed array.

    A block has all rows of tiles of some grids. If one grid is too large, a block has some of its rows.
    """
    per_row = by.size**2 * by.columns * by.strips * max(x.size(1), channels)
    for grids in _equal_parts(len(x), per_row * by.rows):
        for rows in _equal_parts(by.rows, per_row * (grids.stop - grids.start)):
            yield Block(grids, rows.start, rows.stop - rows.start)


def _equal_parts(total: int, numbers: int) -> Iterator[slice]:
    """Cut a total of things with so many numbers each into parts of at most :data:`BLOCK` numbers, or of one thing."""
    largest = max(1, BLOCK // numbers)
    num_parts = -(-total // largest)
    size = -(-total // max(1, num_parts))
    for start in range(0, total, max(1, size)):
        yield slice(start, min(start + size, total))


def _transforms(height: int, width: int, tiles: Tuple[int, ...]) -> Transforms:
    tile = TILE_OF_STRIPS if width > WIDEST else best_tile(height, width, tiles)
    *sizes, arrays = _cached_transforms(height, width, tile)
    return Transforms(*sizes, *map(torch.from_numpy, arrays))


@lru_cache(maxsize=256)
def _cached_transforms(height: int, width: int, tile: int) -> Tuple[int, int, int, int, Tuple[np.ndarray, ...]]:
    """The fields of :class:`Transforms`, with arrays: a tensor would belong to the mode in which it was made."""
    is_wide = width > WIDEST
    rows, columns = -(-height // tile), -(-width // tile)
    strips = 1
    if is_wide:
        strips, columns = min(((-(-columns // one), one) for one in TILES_PER_STRIP), key=np.prod)
        width = columns * tile
    output, kernel, data = matrices_of_tile(tile)
    input_columns, output_columns = matrices_of_axis(width, tile, halo=int(is_wide))
    matrices = (kernel, data, input_columns, output, output_columns)
    return tile, rows, columns, strips, tuple(one.astype(np.float32) for one in matrices)


PREFERS_WINOGRAD = is_wanted(SWITCH, amd_vectors=[AVX2, HALVED_AVX512])
