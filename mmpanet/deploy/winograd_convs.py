# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""3x3 convs of RoI grids by Winograd's algorithm, as matrix products that every runtime has."""

import copy
from typing import List

import numpy as np
import torch
import torch.nn as nn
from mmcv.cnn import Conv2d
from torch import Tensor

from mmpanet.models.layers import FastConv2d
from mmpanet.models.layers.fast_conv import is_plain_3x3
from mmpanet.ops import winograd
from mmpanet.ops.winograd_matrices import best_tile, matrices_of_axis, matrices_of_kernel


class WinogradConv(nn.Module):
    """``nn.Conv2d`` with a 3x3 kernel over grids of one size: the algorithm of :func:`~mmpanet.ops.conv3x3`.

    Runtimes that have Winograd's algorithm at all do not take it for as many small grids as a RoI head has. Here it is
    five matrix products. The matrices of an axis hold all its tiles, so that no tile is cut out of a grid. All five
    take grids as (h, w, N, C). Of the transposes between two convs onnxruntime keeps none.

    Args:
        conv (nn.Conv2d): A layer that :func:`can_replace` takes. Its weights are shared.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, h, w) to (N, C', h, w). A graph holds h and w as constants, and N is open."""
        channels, in_channels = self.weight.shape[:2]
        height, width = (int(side) for side in x.shape[-2:])
        tile = best_tile(height, width, winograd.TILES)
        rows_in, rows_out = self._constants(*matrices_of_axis(height, tile))
        columns_in, columns_out = self._constants(*matrices_of_axis(width, tile))
        [matrix] = self._constants(matrices_of_kernel(tile))
        size, rows, columns = tile + 2, len(rows_in), len(columns_in)
        # Runtimes compute this once: all of it is constant.
        kernel = matrix @ self.weight.permute(2, 3, 1, 0).reshape(9, in_channels * channels)
        kernel = kernel.view(size, 1, size, in_channels, channels)

        x = rows_in @ x.permute(2, 3, 0, 1).reshape(height, -1)
        x = columns_in @ x.reshape(rows, width, -1)
        x = x.reshape(size, rows // size, size, -1, in_channels) @ kernel
        x = columns_out @ x.reshape(rows, columns, -1)
        x = rows_out @ x.reshape(rows, -1)
        x = x.reshape(height, width, -1, channels)
        return (x if self.bias is None else x + self.bias).permute(2, 3, 0, 1)

    def _constants(self, *arrays: np.ndarray) -> List[Tensor]:
        return [torch.from_numpy(array).to(self.weight) for array in arrays]


def can_replace(layer: nn.Module) -> bool:
    """Whether a layer is a 3x3 conv that keeps the size of its grids and has enough channels to be faster."""
    return (
        type(layer) in (nn.Conv2d, Conv2d, FastConv2d)
        and is_plain_3x3(layer)
        and layer.in_channels * layer.out_channels >= winograd.SMALLEST_KERNEL
    )


def with_winograd_convs(head: nn.Module) -> nn.Module:
    """A copy of a RoI head with :class:`WinogradConv` in place of its 3x3 convs. Parameters are shared."""
    head = copy.deepcopy(head, {id(parameter): parameter for parameter in head.parameters()})
    for module in list(head.modules()):
        for name, layer in module.named_children():
            if can_replace(layer):
                setattr(module, name, WinogradConv(layer))
    return head
