# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convs of RoI grids by Winograd's algorithm: against convs in float64, and in graphs."""

import pytest
import torch
import torch.nn as nn
from mmcv.ops import ModulatedDeformConv2dPack
from small_detectors import build, config, write_image

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmpanet.deploy import ExportError, compare_detections, export_detector, quantize_graph
from mmpanet.deploy.winograd_convs import WinogradConv, can_replace, with_winograd_convs
from mmpanet.models import FCFusionMaskHead, PANetShared4Conv1FCBBoxHead
from mmpanet.ops import winograd


@pytest.fixture
def of_any_size(monkeypatch):
    monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', 1)


@torch.no_grad()
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('count', [1, 5])
@pytest.mark.parametrize('size', [(14, 14), (7, 7), (28, 5), (9, 17), (1, 1), (2, 3)])
def test_equals_a_conv_in_float64(size, count, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 24, 3, padding=1, bias=bias)
    x = torch.randn(count, 16, *size)
    found = WinogradConv(conv)(x)
    torch.testing.assert_close(found.double(), conv.double()(x.double()), atol=2e-5, rtol=0)


HEADS = {
    'mask head of mmdet': lambda: FCNMaskHead(num_convs=2, in_channels=6, conv_out_channels=8, num_classes=3),
    'mask head with fusion': lambda: FCFusionMaskHead(
        num_convs=4, in_channels=6, conv_out_channels=8, num_classes=3, num_levels=2
    ),
    'mask head with a norm': lambda: FCFusionMaskHead(
        num_convs=4, in_channels=8, conv_out_channels=8, num_levels=2, norm_cfg=dict(type='GN', num_groups=2)
    ),
    'box head': lambda: PANetShared4Conv1FCBBoxHead(
        in_channels=6, conv_out_channels=8, fc_out_channels=10, num_classes=3, num_levels=2
    ),
}


@torch.no_grad()
@pytest.mark.parametrize('kind', HEADS)
def test_a_head_computes_the_same_and_stays_as_it_is(of_any_size, kind):
    torch.manual_seed(0)
    head = HEADS[kind]().eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.1)
    convs = [layer for layer in head.modules() if can_replace(layer)]
    fast = with_winograd_convs(head)
    replaced = [layer for layer in fast.modules() if isinstance(layer, WinogradConv)]
    assert len(replaced) == len(convs) >= 2
    assert not any(isinstance(layer, WinogradConv) for layer in head.modules())
    assert {id(one) for one in fast.parameters()} == {id(one) for one in head.parameters()}
    size = 7 if kind == 'box head' else 14
    x = torch.randn(3, 2, head.in_channels, size, size)
    x = x[:, 0] if kind == 'mask head of mmdet' else x
    torch.testing.assert_close(fast(x), head(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(8, 8, 1),
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode='reflect'),
        nn.Conv2d(8, 8, 3, padding='same'),
        nn.ConvTranspose2d(8, 8, 3, padding=1),
        ModulatedDeformConv2dPack(8, 8, 3, padding=1),
    ],
    ids=['1x1', 'no padding', 'stride', 'dilation', 'groups', 'reflect', 'same', 'transposed', 'deformable'],
)
def test_other_layers_stay(of_any_size, layer):
    assert not can_replace(layer)
    assert can_replace(nn.Conv2d(8, 8, 3, padding=1))


def test_a_conv_with_few_channels_stays():
    assert can_replace(nn.Conv2d(256, 128, 3, padding=1)) and not can_replace(nn.Conv2d(64, 64, 3, padding=1))


def test_a_detector_without_such_convs_is_refused(tmp_path):
    with pytest.raises(
        ExportError, match='winograd=True: no RoI head of this MaskRCNN has a 3x3 conv .* are 32768 or more'
    ):
        export_detector(build(config()), config(), tmp_path / 'graph', winograd=True)
    assert not (tmp_path / 'graph').exists()


def test_graph_gives_the_detections_of_pytorch(of_any_size, tmp_path):
    """With more detections than the example of the export has, and in eight bits, where these convs stay in float."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    cfg = config()
    cfg.model.roi_head.bbox_head.update(type='PANetShared4Conv1FCBBoxHead', conv_out_channels=64)
    model = build(cfg)
    files = [write_image(tmp_path / f'{i}.png', size, i) for i, size in enumerate([(97, 131), (120, 70)])]
    export_detector(model, cfg, tmp_path, winograd=True)
    nodes = list(onnx.load(str(tmp_path / 'end2end.onnx')).graph.node)
    products = {node.name.rsplit('/', 1)[0] for node in nodes if node.op_type == 'MatMul' and '/conv/' in node.name}
    convs = [node.name for node in nodes if node.op_type == 'Conv' and '/conv/' in node.name]
    assert len(products) == 9 + 7  # the mask head's and the box head's
    assert not any(name.startswith(('/masks/', '/boxes/')) for name in convs)
    found = compare_detections(model, cfg, tmp_path, files)
    assert found.detections >= 10 and found.matched == found.detections and found.extra == 0
    assert found.bboxes < 1e-2 and found.scores < 1e-4 and found.masks < 1e-3

    quantized = quantize_graph(tmp_path / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, files)
    assert quantized and not any(name.startswith(tuple(products)) for name in quantized)
