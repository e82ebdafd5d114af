# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Gates that let PANet grow out of an FPN: nothing changes at the start, and everything can learn."""

import pytest
import torch
from mmengine.config import ConfigDict

from mmdet.models.necks import FPN
from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmpanet.models import (
    AdaptiveFeaturePooling,
    FCFusionMaskHead,
    PANetNeck,
    PANetShared2FCBBoxHead,
    PANetShared4Conv1FCBBoxHead,
)
from mmpanet.models.layers import LevelwiseFusion

STRIDES = [4, 8, 16, 32]
CHANNELS = 16
GN = dict(type='GN', num_groups=4)


def roi_layer(size, sampling_ratio=2):
    return dict(type='RoIAlign', output_size=size, sampling_ratio=sampling_ratio)


def some_rois(count=40):
    """Of all sizes, so that every level has some."""
    corners = torch.rand(count, 2) * 100
    sides = 4 * 2 ** (torch.rand(count, 2) * 8)
    return torch.cat([torch.randint(0, 2, (count, 1)).float(), corners, corners + sides], dim=1)


def some_maps():
    return tuple(torch.rand(2, CHANNELS, 64 >> i, 80 >> i) for i in range(4))


@pytest.mark.parametrize('backend', ['embedding_bag', 'roi_align'])
@pytest.mark.parametrize('scale', [None, 1.3])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_the_own_level_comes_first(backend, scale, sampling_ratio):
    layer = {**roi_layer(7), 'sampling_ratio': sampling_ratio}
    args = dict(roi_layer=layer, out_channels=CHANNELS, featmap_strides=STRIDES)
    feats, rois = some_maps(), some_rois()
    own = SingleRoIExtractor(**args)
    pooled = AdaptiveFeaturePooling(**args, backend=backend, own_level_first=True)(feats, rois, scale)
    in_order = AdaptiveFeaturePooling(**args, backend='roi_align')(feats, rois, scale)
    torch.testing.assert_close(pooled[:, 0], own(feats, rois, scale), rtol=1e-4, atol=1e-4)
    levels = own.map_roi_levels(rois, 4)
    assert levels.unique().tolist() == [0, 1, 2, 3]
    for index, level in enumerate(levels.tolist()):
        others = [one for one in range(4) if one != level]
        torch.testing.assert_close(pooled[index, 1:], in_order[index, others], rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_maps_in_the_order_of_the_levels():
    args = dict(roi_layer=roi_layer(3), out_channels=CHANNELS, featmap_strides=STRIDES, own_level_first=True)
    rois, weight = some_rois(), torch.rand(40, 4, CHANNELS, 3, 3)
    grads = []
    for backend in ('embedding_bag', 'roi_align'):
        feats = [feat.requires_grad_() for feat in some_maps_of_one_seed()]
        (AdaptiveFeaturePooling(**args, backend=backend)(feats, rois) * weight).sum().backward()
        grads.append([feat.grad for feat in feats])
    for bag, align in zip(*grads):
        torch.testing.assert_close(bag, align, rtol=1e-3, atol=1e-3)


def some_maps_of_one_seed():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, CHANNELS, 64 >> i, 80 >> i, generator=generator) for i in range(4)]


HEADS = [
    (PANetShared2FCBBoxHead, Shared2FCBBoxHead, 7, None),
    (PANetShared2FCBBoxHead, Shared2FCBBoxHead, 7, 'share'),
    (PANetShared4Conv1FCBBoxHead, Shared4Conv1FCBBoxHead, 7, None),
    (PANetShared4Conv1FCBBoxHead, Shared4Conv1FCBBoxHead, 7, GN),
    (FCFusionMaskHead, FCNMaskHead, 14, None),
    (FCFusionMaskHead, FCNMaskHead, 14, GN),
]


def build_pair(ours, theirs, size, option, fusion):
    """mmdet's head, randomized, and ours with its weights in all levels."""
    args = dict(in_channels=CHANNELS, conv_out_channels=CHANNELS, roi_feat_size=size, num_classes=3)
    if ours is not FCFusionMaskHead:
        args['fc_out_channels'] = 24
    if isinstance(option, dict):
        args['norm_cfg'] = option
    more = dict(fc_fusion=None) if ours is FCFusionMaskHead else {}
    old = theirs(**args)
    new = ours(**args, **more, level_fusion=fusion, level_gate=True, share_first_layer=option == 'share')
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = old.state_dict()
    for prefix, module in new.named_modules():
        if isinstance(module, LevelwiseFusion):
            for level in range(len(module.levels)):
                for name in module.levels[level].state_dict():
                    state[f'{prefix}.levels.{level}.{name}'] = old.state_dict()[f'{prefix}.{name}']
    missing = new.load_state_dict({key: value for key, value in state.items() if key in new.state_dict()}, strict=False)
    assert all(name.endswith('level_gates') for name in missing.missing_keys) and missing.missing_keys
    return old.eval(), new.eval()


@pytest.mark.parametrize('fusion', ['sum', 'max'])
@pytest.mark.parametrize('ours, theirs, size, option', HEADS)
def test_a_gated_head_starts_as_the_head_of_mmdet(ours, theirs, size, option, fusion):
    old, new = build_pair(ours, theirs, size, option, fusion)
    args = dict(roi_layer=roi_layer(size), out_channels=CHANNELS, featmap_strides=STRIDES)
    feats, rois = some_maps(), some_rois()
    expected = old(SingleRoIExtractor(**args)(feats, rois))
    found = new(AdaptiveFeaturePooling(**args, own_level_first=True)(feats, rois))
    for one, other in zip(*(out if isinstance(out, tuple) else (out,) for out in (found, expected))):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('fusion', ['sum', 'max'])
@pytest.mark.parametrize('ours, theirs, size, option', HEADS)
def test_gates_learn_at_once_and_the_other_layers_after_them(ours, theirs, size, option, fusion):
    _, new = build_pair(ours, theirs, size, option, fusion)
    grids = torch.rand(8, 4, CHANNELS, size, size)
    optimizer = torch.optim.SGD(new.parameters(), lr=0.1)
    gates = [parameter for name, parameter in new.named_parameters() if name.endswith('level_gates')]
    for step in range(2):
        optimizer.zero_grad()
        outs = new(grids)
        sum(out.square().mean() for out in (outs if isinstance(outs, tuple) else (outs,))).backward()
        for name, parameter in new.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if fusion == 'sum':  # the maximum passes nothing to a level of zeros unless the own level is zero too
            assert all(gate.grad.abs().sum() > 0 for gate in gates)
            assert step == 0 or all(parameter.grad.abs().sum() > 0 for parameter in new.parameters())
        optimizer.step()


def test_the_maximum_opens_gates_where_the_own_level_is_silent():
    """ReLU gives zeros on the own level in places; there the gradient of the maximum reaches the gates."""
    _, new = build_pair(PANetShared2FCBBoxHead, Shared2FCBBoxHead, 7, None, 'max')
    new(torch.randn(32, 4, CHANNELS, 7, 7))[0].sum().backward()
    assert new.shared_fcs[0].level_gates.grad.abs().sum() > 0


@pytest.mark.parametrize('fusion', ['sum', 'max'])
def test_with_open_gates_the_fusion_is_the_papers(fusion):
    args = dict(in_channels=CHANNELS, conv_out_channels=CHANNELS, fc_out_channels=24, num_classes=3)
    gated = PANetShared2FCBBoxHead(**args, level_fusion=fusion, level_gate=True)
    paper = PANetShared2FCBBoxHead(**args, level_fusion=fusion)
    torch.nn.init.ones_(gated.shared_fcs[0].level_gates)
    paper.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.endswith('level_gates')})
    grids = torch.rand(5, 4, CHANNELS, 7, 7)
    for one, other in zip(gated(grids), paper(grids)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize('norm_cfg', [None, GN, dict(type='BN')])
@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
def test_a_gated_neck_starts_as_the_fpn(norm_cfg, fusion):
    args = dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
    old = FPN(**args, norm_cfg=norm_cfg)
    new = PANetNeck(**args, norm_cfg=norm_cfg, fusion=fusion, path_gate=True)
    new.init_weights()
    for parameter in old.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    new.load_state_dict(old.state_dict(), strict=False)
    maps = [torch.randn(2, 8 << i, 64 >> i, 48 >> i) for i in range(4)]
    old.train(), new.train()
    for one, other in zip(new(maps), old(maps)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    for step in range(2):
        new.zero_grad()
        sum(out.square().mean() for out in new(maps)).backward()
        assert new.path_gates.grad.abs().sum(1).min() > 0
        if step:  # the gates have moved, so that the new path gets a gradient
            assert all(conv.conv.weight.grad.abs().sum() > 0 for conv in new.bottom_up_convs)
        with torch.no_grad():
            new.path_gates -= 0.1 * new.path_gates.grad.sign()


def test_a_neck_with_open_gates_is_the_papers():
    args = dict(in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
    gated, paper = PANetNeck(**args, path_gate=True), PANetNeck(**args)
    torch.nn.init.ones_(gated.path_gates)
    paper.load_state_dict({k: v for k, v in gated.state_dict().items() if k != 'path_gates'})
    maps = [torch.randn(1, 8 << i, 64 >> i, 48 >> i) for i in range(4)]
    for one, other in zip(gated(maps), paper(maps)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match='warm_start=True and path_gate=True'):
        PANetNeck([8, 16, 32, 64], 16, 5, warm_start=True, path_gate=True)
    with pytest.raises(ValueError, match='level_gate=True needs num_levels of at least 2'):
        PANetShared2FCBBoxHead(num_classes=3, level_gate=True, num_levels=1)
    with pytest.raises(ValueError, match='fuse_before_first_layer=False'):
        FCFusionMaskHead(num_classes=3, level_gate=True, fuse_before_first_layer=True)
    with pytest.raises(ValueError, match='finest_scale=0'):
        AdaptiveFeaturePooling(roi_layer(7), CHANNELS, STRIDES, own_level_first=True, finest_scale=0)


def test_gates_need_the_own_level_first():
    from mmpanet.models import PANetRoIHead

    extractor = dict(
        type='AdaptiveFeaturePooling', roi_layer=roi_layer(7), out_channels=CHANNELS, featmap_strides=STRIDES
    )
    head = dict(type='PANetShared2FCBBoxHead', in_channels=CHANNELS, num_classes=3, level_gate=True)
    with pytest.raises(ValueError, match=r'bbox_head\.level_gate=True needs bbox_roi_extractor\.own_level_first=True'):
        PANetRoIHead(bbox_roi_extractor=ConfigDict(extractor), bbox_head=ConfigDict(head))
    PANetRoIHead(bbox_roi_extractor=ConfigDict(extractor, own_level_first=True), bbox_head=ConfigDict(head))
