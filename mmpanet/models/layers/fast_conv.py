# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Optional

import torch.nn as nn
from mmengine.registry import MODELS
from torch import Tensor

from mmdet.utils import OptConfigType
from mmpanet.ops import conv3x3, winograd


# mmcv's ConvModule looks for convolutions of all packages in the root registry.
@MODELS.register_module()
class FastConv2d(nn.Conv2d):
    """``nn.Conv2d``, but faster on some processors if it is 3x3, see :func:`~mmpanet.ops.conv3x3`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        if is_plain_3x3(self):
            return conv3x3(input, weight, bias)
        return super()._conv_forward(input, weight, bias)


def is_plain_3x3(conv: nn.Conv2d) -> bool:
    """Whether a convolution is what :func:`~mmpanet.ops.conv3x3` computes: 3x3, to grids of the same size."""
    sizes = (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
    return sizes == ((3, 3), (1, 1), (1, 1), (1, 1)) and conv.groups == 1 and conv.padding_mode == 'zeros'


def fast_conv_cfg(conv_cfg: OptConfigType) -> OptConfigType:
    """The config of the convolutions of a neck or head: the user's, or else :class:`FastConv2d` where it is faster.

    Tools that go by the exact type of a layer, such as ``mmcv.cnn.get_model_complexity_info`` and
    ``torch.ao.quantization``, need ``conv_cfg=dict(type='Conv2d')`` there. The state dict is the same.
    """
    return dict(type='FastConv2d') if conv_cfg is None and winograd.PREFERS_WINOGRAD else conv_cfg
