# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Fusion of two feature maps of the same shape: the "+" in PANet's Eq. (1)."""

from typing import Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor

from mmdet.utils import OptConfigType


class SumFusion(BaseModule):
    """Element-wise sum, as in the paper (Section 3.1)."""

    def forward(self, top_down: Tensor, bottom_up: Tensor) -> Tensor:
        """Fuse two maps.

        Args:
            top_down (Tensor): The FPN map P(i+1), (B, C, H, W).
            bottom_up (Tensor): The map computed from N(i), (B, C, H, W).

        Returns:
            Tensor: The fused map, (B, C, H, W).
        """
        return top_down + bottom_up


class ConcatFusion(BaseModule):
    """Concatenation along the channels, followed by a 1x1 convolution back to C channels.

    The path aggregation necks of the YOLO family fuse in this way.

    Args:
        channels (int): C, the number of channels of each of the two maps.
        conv_cfg (dict, optional): Convolution config. Defaults to None.
        norm_cfg (dict, optional): Norm config. Defaults to None.
        act_cfg (dict, optional): Activation config. Defaults to None.
        bias (bool | str): As in :class:`mmcv.cnn.ConvModule`. Defaults to 'auto'.
    """

    def __init__(
        self,
        channels: int,
        conv_cfg: OptConfigType = None,
        norm_cfg: OptConfigType = None,
        act_cfg: OptConfigType = None,
        bias: Union[bool, str] = 'auto',
    ) -> None:
        super().__init__()
        self.reduce = ConvModule(
            2 * channels, channels, 1, bias=bias, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, inplace=False
        )

    def forward(self, top_down: Tensor, bottom_up: Tensor) -> Tensor:
        """Fuse two maps. The shapes are those of :meth:`SumFusion.forward`."""
        return self.reduce(torch.cat([top_down, bottom_up], dim=1))


class WeightedFusion(BaseModule):
    """Sum with two learned weights that are non-negative and normalized.

    This is the "fast normalized fusion" of BiFPN (EfficientDet, CVPR 2020, Section 3.3). Deviation: ``eps`` is a lower
    bound of the sum of the weights instead of a term that is added to it, so that the normalized weights add up to
    exactly one.

    Args:
        eps (float): Lower bound of the sum of the weights. Defaults to 1e-4.
    """

    def __init__(self, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, top_down: Tensor, bottom_up: Tensor) -> Tensor:
        """Fuse two maps. The shapes are those of :meth:`SumFusion.forward`."""
        weights = F.relu(self.weights)
        weights = weights / weights.sum().clamp(min=self.eps)
        # The parameter stays float32 under autocast, but the maps may not.
        weights = weights.to(top_down.dtype)
        return weights[0] * top_down + weights[1] * bottom_up
