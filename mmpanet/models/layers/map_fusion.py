# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Fusion of two feature maps of one shape: the "+" of PANet's Eq. (1)."""

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
            bottom_up (Tensor): The map that comes from N(i), (B, C, H, W).

        Returns:
            Tensor: The fused map, (B, C, H, W).
        """
        return top_down + bottom_up


class ConcatFusion(BaseModule):
    """Concatenation along the channels, then a 1x1 convolution back to C.

    The form that the path aggregation necks of the YOLO family use.

    Args:
        channels (int): C, the channels of each of the two maps.
        conv_cfg (dict, optional): Convolution config. Defaults to None.
        norm_cfg (dict, optional): Norm config. Defaults to None.
        act_cfg (dict, optional): Activation config. Defaults to None.
        bias (bool | str): As in :class:`mmcv.cnn.ConvModule`.
            Defaults to 'auto'.
    """

    def __init__(
        self,
        channels: int,
        conv_cfg: OptConfigType = None,
        norm_cfg: OptConfigType = None,
        act_cfg: OptConfigType = None,
        bias='auto',
    ) -> None:
        super().__init__()
        self.reduce = ConvModule(
            2 * channels, channels, 1, bias=bias, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg, inplace=False
        )

    def forward(self, top_down: Tensor, bottom_up: Tensor) -> Tensor:
        """Fuse two maps; shapes as in :meth:`SumFusion.forward`."""
        return self.reduce(torch.cat([top_down, bottom_up], dim=1))


class WeightedFusion(BaseModule):
    """Sum with two learned, non-negative, normalised weights.

    The "fast normalized fusion" of BiFPN (EfficientDet, CVPR 2020,
    Section 3.3). Deviation: the sum of the weights is bounded from below by
    ``eps`` instead of being shifted by it, so that the weights add up to
    exactly one.

    Args:
        eps (float): Lower bound of the normaliser. Defaults to 1e-4.
    """

    def __init__(self, eps: float = 1e-4) -> None:
        super().__init__()
        self.eps = eps
        self.weights = nn.Parameter(torch.ones(2))

    def forward(self, top_down: Tensor, bottom_up: Tensor) -> Tensor:
        """Fuse two maps; shapes as in :meth:`SumFusion.forward`."""
        weights = F.relu(self.weights)
        weights = weights / weights.sum().clamp(min=self.eps)
        # The parameter stays float32 under autocast; the maps may not.
        weights = weights.to(top_down.dtype)
        return weights[0] * top_down + weights[1] * bottom_up
