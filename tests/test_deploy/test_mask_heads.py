# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mask heads in the form that graphs have: equal to the heads, which stay as they are."""

import pytest
import torch

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmpanet.deploy.mask_heads import PlacedLogits, UpsamplingConvs, for_runtimes
from mmpanet.models import FCFusionMaskHead

SMALL = dict(num_convs=2, in_channels=6, conv_out_channels=8, num_classes=3)


def random_weights(head):
    torch.manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return head.eval()


@torch.no_grad()
@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('scale', [2, 3])
@pytest.mark.parametrize('class_agnostic', [False, True])
def test_equals_the_head_of_mmdet(count, scale, class_agnostic):
    upsample = dict(type='deconv', scale_factor=scale)
    head = random_weights(FCNMaskHead(**SMALL, class_agnostic=class_agnostic, upsample_cfg=upsample))
    x = torch.randn(count, 6, 5, 7)
    fast = for_runtimes(head)
    assert isinstance(fast.upsample, UpsamplingConvs) and isinstance(fast.conv_logits, PlacedLogits)
    torch.testing.assert_close(fast(x), head(x))
    assert not isinstance(head.upsample, UpsamplingConvs) and isinstance(head.relu, torch.nn.ReLU)


@torch.no_grad()
@pytest.mark.parametrize('fc_fusion', [None, 'sum', 'product', 'max'])
def test_equals_the_head_with_fully_connected_fusion(fc_fusion):
    head = random_weights(FCFusionMaskHead(**dict(SMALL, num_convs=3), num_levels=2, fc_fusion=fc_fusion))
    x = torch.randn(4, 2, 6, 14, 14)
    torch.testing.assert_close(for_runtimes(head)(x.unbind(1)), head(x))


@torch.no_grad()
def test_equals_a_head_without_a_bias_and_with_normed_logits():
    head = random_weights(FCNMaskHead(**SMALL, predictor_cfg=dict(type='NormedConv2d', tempearture=20)))
    head.upsample.bias = None
    x = torch.randn(2, 6, 14, 14)
    torch.testing.assert_close(for_runtimes(head)(x), head(x))


class Subclass(FCNMaskHead):
    pass


def overlapping_blocks():
    head = FCNMaskHead(**SMALL)
    head.upsample = torch.nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1)
    return head


def wide_logits():
    head = FCNMaskHead(**SMALL)
    head.conv_logits = torch.nn.Conv2d(8, 3, 3, padding=1)
    return head


@pytest.mark.parametrize(
    'build',
    [
        overlapping_blocks,
        lambda: Subclass(**SMALL),
        lambda: FCNMaskHead(**SMALL, upsample_cfg=dict(type='bilinear', scale_factor=2)),
        lambda: FCNMaskHead(**SMALL, upsample_cfg=dict(type=None)),
        wide_logits,
    ],
    ids=['overlapping blocks', 'subclass', 'bilinear', 'no upsampling', 'wide logits'],
)
def test_another_head_stays_as_it_is(build):
    head = build()
    assert for_runtimes(head) is head
