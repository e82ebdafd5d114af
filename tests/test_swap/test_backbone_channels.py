# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmengine.config import Config
from tiny_training import run_tool

from mmdet.registry import MODELS
from mmpanet.swap.backbone_channels import backbone_maps, wrong_in_channels
from mmpanet.swap.config import plan_swap
from mmpanet.swap.options import SwapOptions
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError


def config(backbone, **neck):
    neck = dict(type='FPN', **{**dict(in_channels=[256, 512, 1024, 2048], out_channels=8, num_outs=5), **neck})
    return Config(dict(model=dict(type='RetinaNet', backbone=backbone, neck=neck), default_scope='mmdet'))


# Swin reads values while it is built, so it cannot be built on the meta device.
BACKBONES = [
    (dict(type='ResNet', depth=50), [256, 512, 1024, 2048], [4, 8, 16, 32]),
    (dict(type='ResNet', depth=18, out_indices=(1, 2)), [128, 256], [8, 16]),
    (
        dict(type='SwinTransformer', embed_dims=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4),
        [24, 48, 96, 192],
        [4, 8, 16, 32],
    ),
    (dict(type='MobileNetV2', out_indices=(2, 4, 6)), [32, 96, 320], [8, 16, 32]),
]


@pytest.mark.parametrize('backbone, channels, strides', BACKBONES)
def test_channels_and_strides(backbone, channels, strides):
    assert backbone_maps(config(backbone)) == (channels, strides)


def test_a_neck_before_the_swapped_one_is_left_alone():
    cfg = config(dict(type='ResNet', depth=18))
    adapter = dict(type='SSDNeck', in_channels=(64, 128, 256, 512), out_channels=(256, 512, 1024, 2048))
    cfg.model.neck = [adapter, cfg.model.neck]
    swap = plan_swap(cfg, SwapOptions(check_channels=True))
    assert swap.config.model.neck[0] == adapter and swap.config.model.neck[1].type == 'PANetNeck'


def test_a_backbone_of_one_map():

    @MODELS.register_module(force=True)
    class BackboneOfOneMap(torch.nn.Conv2d):
        pass

    cfg = config(dict(type='BackboneOfOneMap', in_channels=1, out_channels=4, kernel_size=1, stride=8))
    assert backbone_maps(cfg) == ([4], [8])


def test_a_backbone_that_gives_no_maps():
    """As some of classifiers do unless they are told to leave out their pooling."""

    @MODELS.register_module(force=True)
    class PooledBackbone(torch.nn.Module):
        def forward(self, x):
            return (x.mean((2, 3)),)

    with pytest.raises(ConfigError, match=r'it gives a tensor of shape \(1, 3\), and a neck needs maps'):
        backbone_maps(config(dict(type='PooledBackbone')))


def test_a_backbone_that_does_not_run():

    @MODELS.register_module(force=True)
    class BackboneForLargeImages(torch.nn.Module):
        def forward(self, x):
            raise RuntimeError('images must have 1024 pixels')

    with pytest.raises(ConfigError, match='model.backbone: on an image of .* images must have 1024 pixels'):
        backbone_maps(config(dict(type='BackboneForLargeImages')))
    with pytest.raises(ConfigError, match='model.backbone cannot be built: BackboneOfMine is not in'):
        backbone_maps(config(dict(type='BackboneOfMine')))
    with pytest.raises(ConfigError, match="model.backbone cannot be built: .* unexpected keyword argument 'widths'"):
        backbone_maps(config(dict(type='ResNet', depth=18, widths=3)))


@pytest.mark.parametrize(
    'neck, wrong',
    [
        (dict(in_channels=[64, 128, 256, 512]), False),
        (dict(in_channels=[256, 512, 1024, 2048]), True),
        (dict(in_channels=[64, 128, 256]), True),
        (dict(in_channels=[1, 128, 256, 512], start_level=1), False),  # what the neck does not read may be wrong
        (dict(in_channels=[64, 128, 256, 1], end_level=2, num_outs=3), False),
        (dict(in_channels=[64, 128, 256, 1], end_level=3), True),
        (dict(in_channels=None), True),
    ],
)
def test_which_in_channels_are_wrong(neck, wrong):
    cfg = config(dict(type='ResNet', depth=18), **neck)
    assert (wrong_in_channels(cfg.model, [64, 128, 256, 512]) is not None) == wrong


def test_the_swap_corrects_in_channels():
    cfg = config(dict(type='ResNet', depth=18))
    swap = plan_swap(cfg, SwapOptions(check_channels=True))
    assert swap.config.model.neck.in_channels == [64, 128, 256, 512]
    assert swap.notes == [
        'model.neck.in_channels was [256, 512, 1024, 2048], and is [64, 128, 256, 512] now: the channels that the '
        'backbone ResNet gives'
    ]
    model = MODELS.build(dict(type='FPN', **{k: v for k, v in swap.config.model.neck.items() if k != 'type'}))
    assert len(model.lateral_convs) == 4
    assert plan_swap(cfg).config.model.neck.in_channels == [256, 512, 1024, 2048], 'only on request'

    cfg.model.backbone.out_indices = (1, 2, 3)
    (note,) = plan_swap(cfg, SwapOptions(check_channels=True)).notes
    assert note.endswith('Check num_outs, and the strides of the heads: the maps have the strides [8, 16, 32]')

    # A neck that is not swapped may mean something else by in_channels.
    cfg.model.roi_head = load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model.roi_head
    before = cfg.model.neck.to_dict()
    swap = plan_swap(cfg, SwapOptions(check_channels=True, roi_head_only=True))
    assert swap.config.model.neck.to_dict() == before and not any('in_channels' in note for note in swap.notes)
    del cfg.model.roi_head

    # A backbone that is not installed here is left alone.
    cfg.model.backbone = dict(type='BackboneOfMine')
    assert not plan_swap(cfg, SwapOptions(check_channels=True)).notes


def test_the_zoo_is_right(zoo_config):
    for name in ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'retinanet/retinanet_r18_fpn_1x_coco.py'):
        assert not plan_swap(zoo_config(name), SwapOptions(check_channels=True)).notes


def test_the_tool(tmp_path, capsys):
    path = tmp_path / 'config.py'
    config(dict(type='ResNet', depth=18)).dump(str(path))

    assert run_tool('backbone_channels', path) == 1
    assert capsys.readouterr().out.splitlines() == [
        'model.backbone (ResNet): in_channels=[64, 128, 256, 512], strides [4, 8, 16, 32]',
        'model.neck (FPN) has in_channels=[256, 512, 1024, 2048], which does not fit',
    ]
    assert run_tool('backbone_channels', path, '--cfg-options', 'model.backbone.depth=50') == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    path.write_text("model = dict(type='RetinaNet')\n")
    with pytest.raises(ConfigError, match='no model in it has a backbone and a neck'):
        run_tool('backbone_channels', path)


@pytest.mark.parametrize(
    'backbone, channels, strides',
    [
        (dict(type='mmpretrain.TIMMBackbone', model_name='efficientnet_b0'), [16, 24, 40, 112, 320], [2, 4, 8, 16, 32]),
        (
            dict(type='mmpretrain.TIMMBackbone', model_name='convnext_tiny', out_indices=(0, 1, 2, 3)),
            [96, 192, 384, 768],
            [4, 8, 16, 32],
        ),
        (
            dict(type='mmpretrain.ConvNeXt', arch='tiny', out_indices=(0, 1, 2, 3), gap_before_final_norm=False),
            [96, 192, 384, 768],
            [4, 8, 16, 32],
        ),
        (dict(type='mmpretrain.VAN', arch='tiny', out_indices=(0, 1, 2, 3)), [32, 64, 160, 256], [4, 8, 16, 32]),
    ],
)
def test_backbones_of_other_packages(backbone, channels, strides):
    """They are tried where both packages are installed."""
    pytest.importorskip('timm')
    pytest.importorskip('mmpretrain')
    if 'model_name' in backbone:
        backbone = {**backbone, 'features_only': True, 'pretrained': False}
    cfg = config(backbone, num_outs=len(channels) + 1)
    assert backbone_maps(cfg) == (channels, strides)
    swapped = plan_swap(cfg, SwapOptions(check_channels=True)).config
    assert swapped.model.neck.in_channels == channels
