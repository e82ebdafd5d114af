# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch.nn.functional as F

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmpanet.models import PANetNeck

IN_CHANNELS = [4, 8, 16, 32]
GN = dict(type='GN', num_groups=4)


def build(**kwargs) -> PANetNeck:
    cfg = dict(type='PANetNeck', in_channels=IN_CHANNELS, out_channels=16, num_outs=5)
    neck = MODELS.build({**cfg, **kwargs})
    neck.init_weights()
    return neck


def backbone_maps(height=48, width=64, batch=2, dtype=torch.float32):
    maps = []
    for channels in IN_CHANNELS:
        maps.append(torch.randn(batch, channels, height, width, dtype=dtype))
        height, width = (height + 1) // 2, (width + 1) // 2
    return maps


def top_down_only(neck: PANetNeck, **kwargs) -> FPN:
    """mmdet's FPN with this neck's weights."""
    fpn = FPN(IN_CHANNELS, 16, **kwargs)
    missing = fpn.load_state_dict(neck.state_dict(), strict=False).missing_keys
    assert not missing
    return fpn


@pytest.mark.parametrize('height,width', [(48, 64), (33, 51), (8, 8), (1, 9)])
@pytest.mark.parametrize('norm_cfg', [None, GN])
def test_eq_1_written_out(height, width, norm_cfg):
    """N(i+1) = relu(conv3x3(P(i+1) + relu(conv3x3_s2(N(i)))))."""
    neck = build(norm_cfg=norm_cfg).double()
    fpn = top_down_only(neck, num_outs=4, norm_cfg=norm_cfg).double()
    maps = backbone_maps(height, width, dtype=torch.float64)

    def conv(module, x, stride):
        x = F.conv2d(x, module.conv.weight, module.conv.bias, stride, 1)
        if norm_cfg is not None:
            x = F.group_norm(x, 4, module.gn.weight, module.gn.bias)
        return x.clamp(min=0)

    pyramid = fpn(maps)
    expected = [pyramid[0]]
    for i in range(3):
        down = conv(neck.downsample_convs[i], expected[-1], 2)
        expected.append(conv(neck.bottom_up_convs[i], pyramid[i + 1] + down, 1))
    expected.append(expected[-1][:, :, ::2, ::2])

    outs = neck(maps)
    assert [out.shape for out in outs] == [out.shape for out in expected]
    for out, reference in zip(outs, expected):
        torch.testing.assert_close(out, reference, rtol=1e-12, atol=1e-12)
    assert torch.equal(outs[0], pyramid[0])


EXTRA_LEVELS = [
    dict(num_outs=4),
    dict(num_outs=6),
    dict(num_outs=6, add_extra_convs=True),
    dict(num_outs=6, add_extra_convs='on_input'),
    dict(num_outs=6, add_extra_convs='on_lateral'),
    dict(num_outs=6, add_extra_convs='on_output'),
    dict(num_outs=6, add_extra_convs='on_output', relu_before_extra_convs=True),
    dict(num_outs=5, start_level=1, add_extra_convs='on_output'),
    dict(num_outs=2, start_level=1, end_level=2),
    dict(num_outs=5, norm_cfg=GN, no_norm_on_lateral=True),
    dict(num_outs=5, norm_cfg=GN, act_cfg=dict(type='ReLU')),
    dict(num_outs=5, upsample_cfg=dict(mode='bilinear', align_corners=False)),
    dict(num_outs=5, upsample_cfg=dict(scale_factor=2, mode='nearest')),
    dict(num_outs=5, conv_cfg=dict(type='ConvWS'), norm_cfg=GN),
]


@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
@pytest.mark.parametrize('kwargs', EXTRA_LEVELS, ids=str)
def test_warm_start_is_fpn(kwargs, fusion):
    """mmdet's FPN is the second source for all of its arguments."""
    neck = build(**kwargs, fusion=fusion, warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None)
    fpn = top_down_only(neck, **kwargs)
    maps = backbone_maps()
    outs, expected = neck(maps), fpn(maps)
    assert len(outs) == len(expected) == kwargs['num_outs']
    for out, reference in zip(outs, expected):
        torch.testing.assert_close(out, reference, rtol=0, atol=0)


@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
def test_warm_start_learns(fusion):
    """Convolutions that start at zero can learn: the whole new path gets a gradient."""
    neck = build(fusion=fusion, warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None)
    optimizer = torch.optim.SGD(neck.parameters(), lr=0.1)
    maps = backbone_maps()
    for _ in range(2):
        optimizer.zero_grad()
        sum(out.square().mean() for out in neck(maps)).backward()
        optimizer.step()
    for name, parameter in neck.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_warm_start_initializes_once():
    neck = build(warm_start=True)
    with torch.no_grad():
        neck.downsample_convs[0].conv.weight.fill_(1.0)
    neck.init_weights()
    assert (neck.downsample_convs[0].conv.weight == 1).all()


def test_warm_start_keeps_what_a_pretrained_file_holds(tmp_path):
    """A file with a new path loads as it is; a file of an FPN leaves the new path at its warm start."""
    trained = build(warm_start=True)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    weights = trained.state_dict()
    torch.save(weights, tmp_path / 'panet.pth')
    torch.save({key: value for key, value in weights.items() if key[0] in 'lf'}, tmp_path / 'fpn.pth')
    loaded = build(warm_start=True, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'panet.pth')))
    assert all(torch.equal(value, weights[key]) for key, value in loaded.state_dict().items())
    fpn_alone = build(warm_start=True, init_cfg=[dict(type='Pretrained', checkpoint=str(tmp_path / 'fpn.pth'))])
    assert torch.equal(fpn_alone.lateral_convs[0].conv.weight, weights['lateral_convs.0.conv.weight'])
    assert not fpn_alone.downsample_convs[0].conv.weight.any()


def test_fusions_written_out():
    top_down, bottom_up = torch.randn(2, 1, 16, 5, 7).unbind()
    concat = build(fusion='concat').fusions[0]
    weight = concat.reduce.conv.weight.flatten(1)
    expected = torch.einsum('oc,bchw->bohw', weight, torch.cat([top_down, bottom_up], 1))
    expected += concat.reduce.conv.bias[:, None, None]
    torch.testing.assert_close(concat(top_down, bottom_up), expected.relu(), rtol=1e-4, atol=1e-5)

    weighted = build(fusion='weighted').fusions[0]
    for raw, normalized in [((1.0, 1.0), (0.5, 0.5)), ((3.0, 1.0), (0.75, 0.25)), ((-2.0, 4.0), (0.0, 1.0))]:
        weighted.weights.data = torch.tensor(raw)
        torch.testing.assert_close(weighted(top_down, bottom_up), normalized[0] * top_down + normalized[1] * bottom_up)
    weighted.weights.data = torch.tensor([-1.0, -1.0])
    assert torch.isfinite(weighted(top_down, bottom_up)).all()


@pytest.mark.parametrize(
    'norm_cfg,bottom_up_norm_cfg,bias,new_bias',
    [
        (None, 'same', 'auto', True),
        (GN, 'same', 'auto', False),
        (GN, 'same', True, True),
        (GN, None, 'auto', True),
        (None, dict(type='BN'), 'auto', False),
    ],
)
def test_norm_and_bias_of_the_new_path(norm_cfg, bottom_up_norm_cfg, bias, new_bias):
    neck = build(norm_cfg=norm_cfg, bottom_up_norm_cfg=bottom_up_norm_cfg, bottom_up_bias=bias)
    has_norm = bottom_up_norm_cfg is not None and not (bottom_up_norm_cfg == 'same' and norm_cfg is None)
    for conv in (*neck.downsample_convs, *neck.bottom_up_convs):
        assert conv.with_norm is has_norm
        assert (conv.conv.bias is not None) is new_bias
        assert isinstance(conv.activate, torch.nn.ReLU)
    assert neck.fpn_convs[0].with_norm is (norm_cfg is not None)


def test_levels_that_are_not_a_factor_of_two_apart():
    """With strides 4, 8, 8 and 16, the maps of the new path have the sizes of P."""
    maps = backbone_maps()
    maps[2] = torch.randn(2, 16, *maps[1].shape[2:])
    maps[3] = torch.randn(2, 32, *maps[2].shape[2:])[..., ::2, ::2]
    neck = build(num_outs=4)
    outs = neck(maps)
    assert [out.shape[2:] for out in outs] == [m.shape[2:] for m in maps]
    p4 = top_down_only(neck, num_outs=4)(maps)[2]
    smaller = neck.downsample_convs[1](outs[1])
    resized = smaller.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # to the nearest pixel, as in FPN
    torch.testing.assert_close(outs[2], neck.bottom_up_convs[1](p4 + resized))


@pytest.mark.parametrize('norm', ['BN', 'SyncBN', 'GN'])
def test_every_parameter_gets_a_gradient(norm):
    norm_cfg = dict(type=norm, **(dict(num_groups=4) if norm == 'GN' else {}))
    neck = build(norm_cfg=norm_cfg)
    sum(out.square().sum() for out in neck(backbone_maps())).backward()
    for name, parameter in neck.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
def test_autocast(fusion):
    neck = build(fusion=fusion)
    maps = backbone_maps()
    expected = neck(maps)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outs = neck(maps)
    for out, reference in zip(outs, expected):
        assert out.dtype == torch.bfloat16
        error = (out.float() - reference).abs().max()
        assert error < 0.05 * reference.abs().max()


def test_gradients_in_double_precision():
    neck = build(out_channels=4, norm_cfg=dict(type='GN', num_groups=2))
    neck.double()
    maps = [m.requires_grad_() for m in backbone_maps(4, 8, 1, torch.float64)]
    assert torch.autograd.gradcheck(lambda *maps: neck(maps), maps)


@pytest.mark.parametrize(
    'kwargs,words',
    [
        (dict(fusion='mean'), ["fusion='mean'", 'sum', 'concat', 'weighted']),
        (dict(bottom_up_norm_cfg='GN'), ["bottom_up_norm_cfg='GN'", 'same']),
        (dict(bottom_up_bias='yes'), ["bottom_up_bias='yes'", 'auto']),
    ],
)
def test_bad_arguments(kwargs, words):
    with pytest.raises(ValueError) as error:
        PANetNeck(IN_CHANNELS, 16, 5, **kwargs)
    assert all(word in str(error.value) for word in words)


def test_wrong_number_of_maps():
    with pytest.raises(ValueError, match='in_channels.*4 levels.*gave 3'):
        build()(backbone_maps()[:3])


@pytest.mark.parametrize('path_gate', [False, True])
def test_levels_have_one_dtype(path_gate):
    """Autocast on a GPU computes GN in float32, here a hook does: other poolings than ours refuse mixed maps."""
    neck = PANetNeck([4, 8, 16], 8, 3, path_gate=path_gate)
    for conv in neck.bottom_up_convs:
        conv.register_forward_pre_hook(lambda module, args: tuple(arg.float() for arg in args))
        conv.register_forward_hook(lambda module, args, out: out.double())
    for conv in neck.downsample_convs:
        conv.register_forward_pre_hook(lambda module, args: tuple(arg.float() for arg in args))
    outs = neck([torch.rand(1, channels, size, size) for channels, size in ((4, 16), (8, 8), (16, 4))])
    assert {out.dtype for out in outs} == {torch.float32}
