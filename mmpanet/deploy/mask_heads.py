# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mask heads with layers that runtimes compute faster, in place of equal ones."""

import copy
from typing import List, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmpanet.models import FCFusionMaskHead


class UpsamplingConvs(nn.Module):
    """A transposed conv whose stride is its kernel size, and the ReLU behind it, as 1 x 1 convs.

    Such a transposed conv gives each input pixel a block of s x s output pixels of its own. Here one conv computes the
    pixels of all blocks that have the same place in their block. Runtimes have no transposed conv in eight bits, and
    a conv with its ReLU is one step for them.

    Args:
        deconv (nn.ConvTranspose2d): The layer of a mask head, with weights (C, C', s, s).
    """

    def __init__(self, deconv: nn.ConvTranspose2d) -> None:
        super().__init__()
        weights = deconv.weight.detach().permute(2, 3, 1, 0).flatten(0, 1)[..., None, None]
        self.places = nn.ModuleList()
        for weight in weights:
            conv = nn.Conv2d(deconv.in_channels, deconv.out_channels, 1, bias=False)
            conv.weight, conv.bias = nn.Parameter(weight.contiguous()), deconv.bias
            self.places.append(conv)

    def forward(self, x: Tensor) -> List[Tensor]:
        """From (N, C, h, w) to s * s maps (N, C', h, w), one per place in the block, row by row."""
        return [conv(x).relu() for conv in self.places]


class PlacedLogits(nn.Module):
    """The 1 x 1 conv of the logits on each map of :class:`UpsamplingConvs`, and the logits put into one map.

    The conv comes first, because it leaves fewer channels to move.

    Args:
        conv_logits (nn.Conv2d): The layer of a mask head.
        scale (int): s, the side of a block.
    """

    def __init__(self, conv_logits: nn.Conv2d, scale: int) -> None:
        super().__init__()
        self.conv_logits = conv_logits
        self.scale = scale

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """From s * s maps (N, C', h, w) to (N, classes, s * h, s * w)."""
        logits = torch.stack([self.conv_logits(x) for x in maps], dim=1)
        classes, height, width = logits.shape[2:]
        blocks = logits.reshape(-1, self.scale, self.scale, classes, height, width)
        return blocks.permute(0, 3, 4, 1, 5, 2).reshape(-1, classes, height * self.scale, width * self.scale)


def for_runtimes(head: nn.Module) -> nn.Module:
    """A mask head that computes the same, with :class:`UpsamplingConvs` in a copy where the head has what it takes.

    A subclass may have a ``forward`` of its own, and stays as it is.
    """
    if type(head) not in (FCNMaskHead, FCFusionMaskHead) or head.upsample_method != 'deconv':
        return head
    deconv, logits = head.upsample, head.conv_logits
    scale = deconv.kernel_size[0]
    plain = dict(padding=(0, 0), output_padding=(0, 0), dilation=(1, 1), groups=1)
    blocks = deconv.kernel_size == deconv.stride == (scale, scale) and all(
        getattr(deconv, name) == value for name, value in plain.items()
    )
    if not blocks or not isinstance(logits, nn.Conv2d) or logits.kernel_size != (1, 1) or logits.stride != (1, 1):
        return head
    # The parts are shared with the head; the copy alone has others.
    head = copy.copy(head)
    head._modules = dict(
        head._modules, upsample=UpsamplingConvs(deconv), relu=nn.Identity(), conv_logits=PlacedLogits(logits, scale)
    )
    return head
