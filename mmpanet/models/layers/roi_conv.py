# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Optional

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from mmdet.utils import OptConfigType
from mmpanet.ops import conv3x3


# mmcv's ConvModule looks for convolutions of all packages in the root registry.
@MODELS.register_module()
class RoIConv2d(nn.Conv2d):
    """``nn.Conv2d`` for RoI grids: faster on some processors if it is 3x3, see :func:`~mmpanet.ops.conv3x3`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        sizes = (self.kernel_size, self.stride, self.padding, self.dilation)
        if sizes == ((3, 3), (1, 1), (1, 1), (1, 1)) and self.groups == 1 and self.padding_mode == 'zeros':
            return conv3x3(input, weight, bias)
        return super()._conv_forward(input, weight, bias)


def roi_conv_cfg(conv_cfg: OptConfigType) -> dict:
    """The config of the convolutions of a head, which is :class:`RoIConv2d` if the user has none."""
    return dict(type='RoIConv2d') if conv_cfg is None else conv_cfg
