# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""PANet's RoI heads behind necks that are not an FPN: ``roi_head_only=True`` leaves the neck as it is."""

import copy

import pytest
import torch

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmpanet.swap import SwapError, swap_checkpoint, swap_config, verify
from mmpanet.utils.errors import ConfigError

CHANNELS = dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)


@MODELS.register_module()
class SmoothedFPN(FPN):
    """A neck of a user: an FPN with one more convolution on each level."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.smooth_convs = torch.nn.ModuleList(torch.nn.Conv2d(16, 16, 3, padding=1) for _ in range(self.num_outs))

    def forward(self, inputs):
        return tuple(conv(level) for conv, level in zip(self.smooth_convs, super().forward(inputs)))


NECKS = {
    'FPN and BFP': [
        dict(type='FPN', **CHANNELS),
        dict(type='BFP', in_channels=16, num_levels=5, refine_level=2, refine_type='non_local'),
    ],
    'NASFPN': dict(type='NASFPN', stack_times=2, norm_cfg=dict(type='BN'), **CHANNELS),
    'FPG': dict(
        type='FPG',
        inter_channels=16,
        stack_times=2,
        paths=['bu'] * 2,
        same_down_trans=None,
        same_up_trans=dict(type='conv', kernel_size=3, stride=2, padding=1, norm_cfg=dict(type='BN'), inplace=False),
        across_lateral_trans=dict(type='conv', kernel_size=1, norm_cfg=dict(type='BN'), inplace=False),
        across_down_trans=dict(type='interpolation_conv', mode='nearest', kernel_size=3, norm_cfg=dict(type='BN')),
        across_up_trans=None,
        across_skip_trans=dict(type='conv', kernel_size=1, norm_cfg=dict(type='BN'), inplace=False),
        output_trans=dict(type='last_conv', kernel_size=3, inplace=False),
        norm_cfg=dict(type='BN'),
        skip_inds=[(0, 1), (0, 1), (0, 1), (0,), ()],
        **CHANNELS,
    ),
    'FPN_CARAFE': dict(type='FPN_CARAFE', upsample_cfg=dict(type='nearest'), order=('conv', 'norm', 'act'), **CHANNELS),
    'HRFPN': dict(type='HRFPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5),
    'of a user': dict(type='SmoothedFPN', **CHANNELS),
}


def train_a_step_and_predict(model):
    data = demo_mm_inputs(2, [[3, 128, 128]] * 2, num_classes=3, with_mask=True)
    data = model.train().data_preprocessor(data, training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith('roi_head.'):
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    with torch.no_grad():
        results = model.eval()(**data, mode='predict')
    assert all(sample.pred_instances.scores.isfinite().all() for sample in results)
    assert all('masks' in sample.pred_instances for sample in results)


@pytest.mark.parametrize('kind', NECKS)
def test_heads_behind_this_neck(small_config, kind):
    small_config.model.neck = copy.deepcopy(NECKS[kind])
    swapped = swap_config(small_config, roi_head_only=True)
    assert swapped.model.neck == small_config.model.neck
    roi_head = swapped.model.roi_head
    assert [roi_head.type, roi_head.bbox_roi_extractor.type, roi_head.bbox_head.type, roi_head.mask_head.type] == [
        'PANetRoIHead',
        'AdaptiveFeaturePooling',
        'PANetShared2FCBBoxHead',
        'FCFusionMaskHead',
    ]
    model = MODELS.build(swapped.model)
    model.init_weights()
    train_a_step_and_predict(model)


def test_a_checkpoint_goes_along(small_config, trained_like):
    """The weights of the neck stay, and the heads get their first layers on each level."""
    swapped = swap_config(small_config, roi_head_only=True)
    checkpoint, carried = swap_checkpoint(trained_like.state_dict(), small_config, swapped)
    assert not [name for name in carried.new if not name.startswith('roi_head.')]
    assert set(carried.renamed.values()) >= {'roi_head.bbox_head.shared_fcs.0.weight'}
    for name, value in checkpoint['state_dict'].items():
        if name.startswith(('backbone.', 'neck.', 'rpn_head.')):
            assert torch.equal(value, trained_like.state_dict()[name])


def test_heads_that_grow_behind_another_neck(small_config):
    """With gates, the model starts with the outputs of the old one."""
    small_config.model.neck = copy.deepcopy(NECKS['FPN and BFP'])
    swapped = swap_config(small_config, roi_head_only=True, grow=True)
    assert max(found for _, _, found in verify(small_config, swapped, runs=1).differences.values()) < 1e-3


def test_what_does_not_go_together(small_config):
    for setting, named in ((dict(warm_start=True), 'warm_start=True'), (dict(fusion='concat'), "fusion='concat'")):
        with pytest.raises(ConfigError, match=f'roi_head_only=True with {named}: the neck stays'):
            swap_config(small_config, roi_head_only=True, **setting)
    del small_config.model['roi_head']
    with pytest.raises(SwapError, match='nothing to swap: model: it has no roi_head'):
        swap_config(small_config, roi_head_only=True)


def test_a_refused_neck_names_the_option(small_config):
    small_config.model.neck = copy.deepcopy(NECKS['NASFPN'])
    with pytest.raises(SwapError, match='NASFPN stays, .*; with --roi-head-only its RoI head can be swapped'):
        swap_config(small_config, roi_head=True)


def test_a_refused_head_does_not_offer_the_neck(zoo_config):
    cfg = zoo_config('htc/htc_r50_fpn_1x_coco.py')
    with pytest.raises(SwapError, match='cannot be swapped: type=HybridTaskCascadeRoIHead'):
        swap_config(cfg, roi_head_only=True)
