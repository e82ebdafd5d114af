# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
from torch import nn

from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.registry import MODELS

SIZES = dict(in_channels=8, fc_out_channels=32, num_classes=5)
CONVS = dict(conv_out_channels=8)
GN = dict(type='GN', num_groups=4)
NORMS = [None, GN, dict(type='BN'), dict(type='SyncBN'), dict(type='LN')]


def build(kind='2FC', **kwargs):
    cfg = {**SIZES, **(CONVS if kind == '4Conv1FC' else {}), **kwargs}
    head = MODELS.build(dict(type=f'PANetShared{kind}BBoxHead', **cfg))
    head.init_weights()
    return head.eval()


def grids(num=6, levels=4, dtype=torch.float32):
    return torch.randn(num, levels, 8, 7, 7, dtype=dtype)


def test_2fc_written_out():
    """Section 3.2: max over the levels of relu(fc1_l), followed by relu(fc2)."""
    head, x = build().double(), grids(dtype=torch.float64)
    fc1, fc2 = head.shared_fcs
    levels = [(x[:, i].flatten(1) @ fc.weight.T + fc.bias).clamp(min=0) for i, fc in enumerate(fc1.levels)]
    hidden = torch.stack(levels).amax(0)
    hidden = (hidden @ fc2.weight.T + fc2.bias).clamp(min=0)
    scores, deltas = head(x)
    for out, layer in ((scores, head.fc_cls), (deltas, head.fc_reg)):
        torch.testing.assert_close(out, hidden @ layer.weight.T + layer.bias, rtol=0, atol=1e-12)
    assert scores.shape == (6, 6) and deltas.shape == (6, 20)


@pytest.mark.parametrize('kind,reference', [('2FC', Shared2FCBBoxHead), ('4Conv1FC', Shared4Conv1FCBBoxHead)])
@pytest.mark.parametrize('level_fusion', ['max', 'sum'])
def test_one_level_is_mmdets_head(kind, reference, level_fusion):
    norm_cfg = GN if kind == '4Conv1FC' else None
    kwargs = dict(norm_cfg=norm_cfg) if norm_cfg else {}
    head = build(kind, num_levels=1, level_fusion=level_fusion, **kwargs)
    theirs = reference(**SIZES, **(CONVS if norm_cfg else {}), **kwargs).eval()
    state = {key.replace('levels.0.', ''): value for key, value in head.state_dict().items()}
    theirs.load_state_dict(state)
    x = grids(levels=1)
    expected = theirs(x[:, 0])
    # mmdet's own extractors give (N, C, h, w)
    for outs in (head(x), head(x[:, 0])):
        torch.testing.assert_close(outs, expected)


@pytest.mark.parametrize('kind', ['2FC', '4Conv1FC'])
def test_equal_levels_make_max_and_single_level_the_same(kind):
    head = build(kind)
    first = (head.shared_fcs if kind == '2FC' else head.shared_convs)[0]
    for layer in first.levels[1:]:
        layer.load_state_dict(first.levels[0].state_dict())
    shared = build(kind, share_first_layer=True)
    shared.load_state_dict(head.state_dict(), strict=False)
    before = build(kind, fuse_before_first_layer=True)
    before.load_state_dict(head.state_dict(), strict=False)
    x = grids()
    for a, b in zip(head(x), shared(x)):
        torch.testing.assert_close(a, b)
    x = x[:, :1].expand(-1, 4, -1, -1, -1)
    for a, b in zip(head(x), before(x)):
        torch.testing.assert_close(a, b)


def test_fused_before_the_first_layer():
    """Table 4: element-wise fusion of the pooled grids, followed by mmdet's head."""
    x = grids()
    for fusion, fused in (('max', x.amax(1)), ('sum', x.sum(1))):
        head = build(level_fusion=fusion, fuse_before_first_layer=True)
        theirs = Shared2FCBBoxHead(**SIZES)
        theirs.load_state_dict({key.replace('levels.0.', ''): value for key, value in head.state_dict().items()})
        for out, expected in zip(head(x), theirs(fused)):
            torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    'kind,switch,layers',
    [
        ('2FC', {}, 4),
        ('2FC', dict(num_levels=3), 3),
        ('2FC', dict(share_first_layer=True), 1),
        ('4Conv1FC', {}, 4),
        ('4Conv1FC', dict(fuse_before_first_layer=True), 1),
    ],
)
def test_number_of_first_layers(kind, switch, layers):
    head = build(kind, **switch)
    first = (head.shared_fcs if kind == '2FC' else head.shared_convs)[0]
    assert len(first.levels) == layers


@pytest.mark.parametrize('kind', ['2FC', '4Conv1FC'])
@pytest.mark.parametrize('norm_cfg', NORMS[:4], ids=str)
@pytest.mark.parametrize('num', [7, 1, 0])
def test_every_parameter_gets_a_gradient(kind, norm_cfg, num):
    """Also with a single RoI, and without any RoI."""
    fc_norm = dict(fc_norm_cfg=norm_cfg) if kind == '4Conv1FC' else {}
    head = build(kind, norm_cfg=norm_cfg, **fc_norm).train()
    scores, deltas = head(grids(num).requires_grad_())
    labels = torch.zeros(num, dtype=torch.long)
    losses = head.loss(
        scores, deltas, torch.zeros(num, 5), labels, torch.ones(num), torch.zeros(num, 4), torch.ones(num, 4)
    )
    assert {'loss_cls', 'loss_bbox'} <= set(losses)
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    for name, buffer in head.named_buffers():
        assert torch.isfinite(buffer.float()).all(), name


@pytest.mark.parametrize('kind', [nn.BatchNorm2d, 'torch.nn.modules.batchnorm.BatchNorm2d'], ids=str)
def test_a_norm_may_be_a_class(kind):
    """As in configs that import what they name. BN means BN1d for an fc."""
    head = build(norm_cfg=dict(type=kind))
    assert all(isinstance(fc.norm, nn.BatchNorm1d) for fc in head.shared_fcs[1:])
    head(grids())


@pytest.mark.parametrize('norm_cfg', NORMS[1:], ids=str)
def test_norm_stands_on_both_fcs(norm_cfg):
    head, x = build(norm_cfg=norm_cfg), grids()
    fc1, fc2 = head.shared_fcs
    for fc in (*fc1.levels, fc2):
        torch.nn.init.normal_(fc.norm.weight)
        hidden = torch.nn.functional.linear(
            x[:, 0].flatten(1) if fc is not fc2 else torch.ones(6, 32), fc.weight, fc.bias
        )
        torch.testing.assert_close(fc(x[:, 0] if fc is not fc2 else torch.ones(6, 32)), fc.norm(hidden).relu())


def test_initialization():
    """Xavier for the shared fcs, N(0, .01) and N(0, .001) for the outputs."""
    head = build(norm_cfg=GN, in_channels=64, fc_out_channels=512)
    for fc in (*head.shared_fcs[0].levels, head.shared_fcs[1]):
        bound = (6 / sum(fc.weight.shape)) ** 0.5
        assert bound * 0.99 < fc.weight.abs().max() <= bound
        assert (fc.bias == 0).all() and (fc.norm.weight == 1).all()
    assert 0.009 < head.fc_cls.weight.std() < 0.011
    assert 0.0009 < head.fc_reg.weight.std() < 0.0011
    build(with_reg=False)


def test_double_precision_gradients():
    head = build('4Conv1FC', num_levels=2, roi_feat_size=3, norm_cfg=GN)
    head.double()
    x = grids(2, 2, dtype=torch.float64)[..., :3, :3].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(x)[0][:, :2], x)


def error_in_bfloat16(function, x):
    """The largest error under autocast, relative to the largest value, for each output."""
    expected = function(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = function(x)
    return [
        ((out.float() - reference).abs().max() / reference.abs().max()).item() for out, reference in zip(outs, expected)
    ]


@pytest.mark.parametrize('kind', ['2FC', '4Conv1FC'])
def test_autocast(kind):
    """As exact as torch's convolution allows.

    The rounding of a convolution to bfloat16 gives an error of 0.5 %. On a CPU without instructions for bfloat16, the
    convolution of torch 2.0 also sums in bfloat16, and its error is 2 to 5 %. Other layers and versions only round.
    """
    conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    [error_of_conv] = error_in_bfloat16(lambda x: [conv(x)], grids()[:, 0])
    tolerance = 0.05 if error_of_conv < 0.01 else 5 * error_of_conv
    assert max(error_in_bfloat16(build(kind, norm_cfg=GN), grids())) < tolerance


@pytest.mark.parametrize(
    'kwargs,words',
    [
        (dict(level_fusion='mean'), ["level_fusion='mean'", 'max', 'sum']),
        (dict(num_levels=0), ['num_levels=0', 'at least 1']),
        (dict(with_avg_pool=True), ['with_avg_pool=True', 'PANetShared2FC']),
        (dict(num_cls_fcs=1), ['num_cls_fcs=1 must be 0']),
        (dict(kind='4Conv1FC', num_reg_convs=2), ['num_reg_convs=2 must be 0']),
        (dict(norm_cfg=dict(type='BN', track_running_stats=False)), ['track_running_stats=True']),
    ],
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError) as error:
        build(**kwargs)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize('shape', [(3, 8, 7, 7), (3, 5, 8, 7, 7)])
def test_features_of_another_extractor(shape):
    with pytest.raises(ValueError, match='num_levels=4.*AdaptiveFeature'):
        build()(torch.zeros(shape))


@pytest.mark.parametrize('num', [0, 1, 37])
@pytest.mark.parametrize('norm_cfg', NORMS)
def test_the_fast_form_at_inference_is_the_plain_one(norm_cfg, num):
    """The same results with and without gradients, and with grids in either memory layout."""
    head = build(norm_cfg=norm_cfg)
    x = torch.randn(num, 4, 7, 7, 8).permute(0, 1, 4, 2, 3)
    plain = head(x)
    assert plain[0].requires_grad
    with torch.no_grad():
        fast = head(x)
        contiguous = head(x.contiguous())
    for one, other, third in zip(plain, fast, contiguous):
        torch.testing.assert_close(one.detach(), other, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.detach(), third, rtol=0, atol=1e-5)
