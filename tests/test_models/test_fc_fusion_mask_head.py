# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS

SIZES = dict(in_channels=8, conv_out_channels=8, num_classes=5)
GN = dict(type='GN', num_groups=4)


def build(**kwargs):
    head = MODELS.build({**dict(type='FCFusionMaskHead'), **SIZES, **kwargs})
    head.init_weights()
    return head.eval()


def grids(num=3, levels=4, size=14, dtype=torch.float32):
    return torch.randn(num, levels, 8, size, size, dtype=dtype)


def run(convs, x):
    for conv in convs:
        x = F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1).relu()
    return x


@pytest.mark.parametrize('fc_relu', [True, False])
@pytest.mark.parametrize('fc_fusion', ['sum', 'product', 'max', None])
@pytest.mark.parametrize('start', [2, 3, 4])
def test_section_3_3_written_out(start, fc_fusion, fc_relu):
    head = build(fc_branch_start=start, fc_fusion=fc_fusion, fc_relu=fc_relu).double()
    x = grids(dtype=torch.float64)
    conv1, *convs = head.convs
    trunk = torch.stack([run([conv], x[:, i]) for i, conv in enumerate(conv1.levels)]).amax(0)
    trunk_at_start = run(convs[: start - 1], trunk)
    up = F.conv_transpose2d(run(convs, trunk), head.upsample.weight, head.upsample.bias, stride=2).relu()
    expected = F.conv2d(up, head.conv_logits.weight, head.conv_logits.bias)
    if fc_fusion is not None:
        side = run([head.conv4_fc, head.conv5_fc], trunk_at_start)
        assert side.shape[1] == 4  # half of the channels
        side = side.flatten(1) @ head.mask_fc.weight.T + head.mask_fc.bias
        side = side.clamp(min=0) if fc_relu else side
        side = side.reshape(3, 1, 28, 28)
        expected = dict(sum=expected + side, product=expected * side, max=torch.maximum(expected, side))[fc_fusion]
    out = head(x)
    assert out.shape == (3, 5, 28, 28)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('norm_cfg', [None, GN])
@pytest.mark.parametrize('upsample', ['deconv', 'bilinear', None])
def test_one_level_without_fusion_is_mmdets_head(norm_cfg, upsample):
    kwargs = dict(norm_cfg=norm_cfg, upsample_cfg=dict(type=upsample, scale_factor=2 if upsample else None))
    head = build(num_levels=1, fc_fusion=None, **kwargs)
    theirs = FCNMaskHead(**SIZES, **kwargs).eval()
    theirs.load_state_dict({key.replace('levels.0.', ''): value for key, value in head.state_dict().items()})
    x = grids(levels=1)
    torch.testing.assert_close(head(x), theirs(x[:, 0]))
    torch.testing.assert_close(head(x[:, 0]), theirs(x[:, 0]))


@pytest.mark.parametrize(
    'kwargs,size,mask_size',
    [
        (dict(roi_feat_size=7), 7, 14),
        (dict(roi_feat_size=10, upsample_cfg=dict(type=None)), 10, 10),
        (dict(upsample_cfg=dict(type='nearest', scale_factor=3)), 14, 42),
        (dict(class_agnostic=True), 14, 28),
    ],
)
def test_sizes(kwargs, size, mask_size):
    out = build(**kwargs)(grids(size=size))
    channels = 1 if kwargs.get('class_agnostic') else 5
    assert out.shape == (3, channels, mask_size, mask_size)


@pytest.mark.parametrize('num', [3, 1, 0])
@pytest.mark.parametrize('norm', [None, 'GN', 'BN', 'SyncBN'])
def test_every_parameter_gets_a_gradient(norm, num):
    norm_cfg = norm and dict(type=norm, **(dict(num_groups=4) if norm == 'GN' else {}))
    head = build(norm_cfg=norm_cfg, fc_relu=False).train()
    head(grids(num)).square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if num == 3 and norm is None:
            assert parameter.grad.abs().sum() > 0, name


def test_initialization():
    """N(0, 0.01) for the fc, MSRA (fan-out) for the logits."""
    head = build(in_channels=64, conv_out_channels=64)
    assert 0.0099 < head.mask_fc.weight.std() < 0.0101
    assert (head.mask_fc.bias == 0).all()
    assert head.conv_logits.weight.std().item() == pytest.approx((2 / 5) ** 0.5, rel=0.2)


def test_gradients_in_double_precision():
    head = build(roi_feat_size=4, norm_cfg=GN).double()
    x = grids(1, size=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(x)[:, :1, :2], x)


def test_autocast():
    head, x = build(norm_cfg=GN), grids()
    expected = head(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head(x)
    assert (out.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    'kwargs,words',
    [
        (dict(fc_fusion='mean'), ["fc_fusion='mean'", 'product', 'None']),
        (dict(fc_branch_start=1), ['fc_branch_start=1', '(2, 3, 4)']),
        (dict(fc_branch_start=4, num_convs=3), ['fc_branch_start=4', 'num_convs=3']),
        (dict(num_convs=0), ['num_convs=0', 'at least 1']),
        (dict(level_fusion='concat'), ["level_fusion='concat'", 'max']),
    ],
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError) as error:
        build(**kwargs)
    assert all(word in str(error.value) for word in words)


def test_wrong_roi_size():
    with pytest.raises(ValueError, match=r'roi_feat_size=\(14, 14\).*\(7, 7'):
        build()(grids(size=7))
