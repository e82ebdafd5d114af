# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
import torch._dynamo
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmpanet.models import FastSingleRoIExtractor
from mmpanet.utils.errors import ConfigError

STRIDES = [4, 8, 16, 32]


def build(kind='FastSingleRoIExtractor', output_size=7, sampling_ratio=2, strides=STRIDES, **kwargs):
    return MODELS.build(
        dict(
            type=kind,
            roi_layer=dict(type='RoIAlign', output_size=output_size, sampling_ratio=sampling_ratio),
            out_channels=8,
            featmap_strides=strides,
            **kwargs,
        )
    )


def maps(height=512, width=640, strides=STRIDES, dtype=torch.float32):
    return [torch.randn(2, 8, -(-height // stride), -(-width // stride), dtype=dtype) for stride in strides]


def some_rois(num, height=512, width=640):
    """RoIs of all levels; some are partly outside the image, and some have no size."""
    center = torch.rand(num, 2) * torch.tensor([width, height])
    size = torch.exp2(torch.rand(num, 1) * 9) * torch.exp2(torch.rand(num, 2) - 0.5)
    size[:3] = 0
    image = torch.randint(0, 2, (num, 1)).float()
    return torch.cat([image, center - size / 2, center + size / 2], dim=1)


@pytest.mark.parametrize('roi_scale_factor', [None, 1.3])
@pytest.mark.parametrize('strides', [STRIDES, [8], [4, 8, 16, 32, 64]])
@pytest.mark.parametrize('output_size,sampling_ratio', [(7, 2), (14, 1), (3, 3), (7, 0)])
@pytest.mark.gpu
def test_the_same_as_mmdets(output_size, sampling_ratio, strides, roi_scale_factor, device):
    """Forward and backward, with RoIs on each level, and with adaptive sampling too."""
    torch.manual_seed(0)
    feats = [feat.to(device).requires_grad_() for feat in maps(strides=strides)]
    rois = some_rois(60).to(device)
    ours = build(output_size=output_size, sampling_ratio=sampling_ratio, strides=strides)
    theirs = build('SingleRoIExtractor', output_size, sampling_ratio, strides)
    levels = theirs.map_roi_levels(rois, len(strides))
    assert len(levels.unique()) == min(len(strides), 4)
    out, expected = ours(feats, rois, roi_scale_factor), theirs(feats, rois, roi_scale_factor)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
    grad = torch.randn_like(expected)
    grads = torch.autograd.grad(out, feats, grad)
    for got, reference in zip(grads, torch.autograd.grad(expected, feats, grad)):
        torch.testing.assert_close(got, reference, rtol=1e-4, atol=1e-3)


def poolings(sampling_ratio=2):
    """Both extractors with one call for all levels, and the pooling of all levels in the order of each RoI."""
    arguments = dict(strides=STRIDES, backend='embedding_bag', sampling_ratio=sampling_ratio)
    return build(**arguments), build('AdaptiveFeaturePooling', **arguments, own_level_first=True)


@pytest.mark.parametrize('index', [0, 1], ids=['one level', 'all levels'])
def test_a_box_that_ends_before_it_begins_belongs_to_the_finest_level(index):
    rois = torch.tensor([[1, 400.0, 60.0, 100.0, 300.0], [0, 50.0, 60.0, 100.0, 90.0]])
    feats = maps()
    found = poolings()[index](feats, rois).flatten(2)
    expected = poolings()[index](feats[:1] * 4, rois).flatten(2)  # its level is the first in either order
    assert len(found) == 2 and torch.equal(found[1], poolings()[index](feats, rois[1:]).flatten(2)[0])
    if index == 0:
        single = build(strides=STRIDES[:1], backend='embedding_bag')
        assert torch.equal(found, single(feats[:1], rois).flatten(2))
    else:
        assert torch.equal(found[:, :1], expected[:, :1])


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('gradients', [True, False])
@pytest.mark.parametrize('index', [0, 1], ids=['one level', 'all levels'])
def test_a_roi_of_nan_gives_nan_and_leaves_the_others_alone(index, gradients, sampling_ratio):
    feats = [feat.requires_grad_(gradients) for feat in maps()]
    rois = torch.tensor([[0, float('nan'), 60.0, 100.0, 300.0], [1, 50.0, 60.0, 100.0, 90.0]])
    pooling = poolings(sampling_ratio)[index]
    found = pooling(feats, rois)
    assert found[0].isnan().all() and torch.equal(found[1], pooling(feats, rois[1:])[0])


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('image', [-1, 2])
@pytest.mark.parametrize('index', [0, 1], ids=['one level', 'all levels'])
def test_an_image_that_is_not_there_is_an_error(index, image, sampling_ratio):
    """The rows behind the last image are those of the next level."""
    rois = torch.tensor([[0, 10.0, 60.0, 100.0, 300.0], [image, 50.0, 60.0, 100.0, 90.0]])
    with pytest.raises(RuntimeError, match='range|idx'):
        poolings(sampling_ratio)[index](maps(), rois)


def test_the_rule_of_a_subclass_counts():
    class Coarse(FastSingleRoIExtractor):
        def map_roi_levels(self, rois, num_levels):
            return torch.full((len(rois),), num_levels - 1)

    feats, rois = maps(), some_rois(6)
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=2)
    for backend in ('embedding_bag', 'roi_align'):
        found = Coarse(layer, 8, STRIDES, backend=backend)(feats, rois)
        expected = build(strides=STRIDES[3:])(feats[3:], rois)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_without_rois_every_map_has_a_gradient(sampling_ratio):
    feats = [feat.requires_grad_() for feat in maps()]
    out = build(sampling_ratio=sampling_ratio)(feats, torch.zeros(0, 5))
    assert out.shape == (0, 8, 7, 7)
    out.sum().backward()
    assert all(feat.grad is not None for feat in feats)


@pytest.mark.gpu
def test_channels_last_and_bfloat16(device):
    feats, rois = [feat.to(device) for feat in maps()], some_rois(40).to(device)
    expected = build('SingleRoIExtractor')(feats, rois)
    last = [feat.to(memory_format=torch.channels_last) for feat in feats]
    torch.testing.assert_close(build()(last, rois), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(build(backend='roi_align')(last, rois), expected)
    half = build()([feat.bfloat16() for feat in feats], rois)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=5e-2)


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="backend='cuda' must be one of .*'roi_align'"):
        build(backend='cuda')
    layer = dict(type='RoIAlign', output_size=7, pool_mode='max')
    with pytest.raises(ValueError, match="backend='embedding_bag' needs .* pool_mode=max"):
        FastSingleRoIExtractor(layer, 8, STRIDES, backend='embedding_bag')


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_traced_for_rois_of_any_size(sampling_ratio):
    pooling, feats = build(sampling_ratio=sampling_ratio, strides=STRIDES[:1]), maps(strides=STRIDES[:1])
    traced = torch.jit.trace(lambda rois: pooling(feats, rois), some_rois(9), check_trace=False)
    rois = some_rois(9)
    torch.testing.assert_close(traced(rois), pooling(feats, rois), rtol=0, atol=1e-5)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_compiled_for_any_number_of_rois(sampling_ratio):
    """The number of taps depends on the RoIs, so there is no single graph."""
    torch._dynamo.reset()
    pooling = build(sampling_ratio=sampling_ratio)
    compiled = torch.compile(pooling, backend='eager')
    for num in (5, 9, 17):
        feats, rois = [feat.requires_grad_() for feat in maps(128, 160)], some_rois(num, 128, 160)
        out, expected = compiled(feats, rois), pooling(feats, rois)
        torch.testing.assert_close(out, expected)
        grad = torch.randn_like(out)
        for one, other in zip(torch.autograd.grad(out, feats, grad), torch.autograd.grad(expected, feats, grad)):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_in_a_faster_rcnn_the_detections_stay(sampling_ratio):
    """In mmdet's RoI head, with mmdet's heads."""
    torch.manual_seed(0)
    results = []
    feats, rois = tuple(maps()), some_rois(50)
    proposals = [InstanceData(bboxes=rois[rois[:, 0] == i, 1:]) for i in range(2)]
    for kind in ('SingleRoIExtractor', 'FastSingleRoIExtractor'):
        torch.manual_seed(1)
        head = StandardRoIHead(
            bbox_roi_extractor=dict(
                type=kind,
                roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=sampling_ratio),
                out_channels=8,
                featmap_strides=STRIDES,
            ),
            bbox_head=dict(type='Shared2FCBBoxHead', in_channels=8, fc_out_channels=16, roi_feat_size=7, num_classes=3),
            test_cfg=ConfigDict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20),
        ).eval()
        metas = [dict(img_shape=(512, 640), scale_factor=(1.0, 1.0))] * 2
        with torch.no_grad():
            results.append(head.predict_bbox(feats, metas, proposals, head.test_cfg))
    assert isinstance(head.bbox_roi_extractor, FastSingleRoIExtractor)
    for one, other in zip(*results):
        assert len(one) > 0
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(one.bboxes, other.bboxes, rtol=0, atol=1e-2)


@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
@pytest.mark.gpu
def test_half_precision_rounds_the_values_alone(backend, device):
    feats = [feat.half().to(device) for feat in maps()]
    rois = some_rois(50).to(device)
    expected = build('SingleRoIExtractor')([feat.float() for feat in feats], rois)
    out = build(backend=backend)(feats, rois)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize('finest_scale', [0, -56, 56.5])
def test_a_finest_scale_that_orders_nothing(finest_scale):
    with pytest.raises(ConfigError, match=f'finest_scale={finest_scale}'):
        build(finest_scale=finest_scale)
