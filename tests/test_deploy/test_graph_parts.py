# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Parts of the graph in PyTorch and in onnxruntime against the modules that they stand for."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.deploy.end2end import Preprocessing
from mmpanet.deploy.export import OPSET
from mmpanet.deploy.pooling import Pooling
from mmpanet.deploy.roi_heads import RoIBoxes

STRIDES = [4, 8, 16, 32]
EXTRACTORS = {
    'SingleRoIExtractor': dict(type='SingleRoIExtractor'),
    'FastSingleRoIExtractor': dict(type='FastSingleRoIExtractor'),
    'all levels': dict(type='AdaptiveFeaturePooling'),
    'own level first': dict(type='AdaptiveFeaturePooling', own_level_first=True),
}


def pooling_case(cfg, num=40):
    """An extractor, maps of two images, and RoIs of all levels in no order."""
    torch.manual_seed(0)
    layer = dict(type='RoIAlign', output_size=3, sampling_ratio=2)
    # The RoIs of a small image lie on all levels: from 2 * 7 pixels on, each doubling is one level more.
    extractor = MODELS.build(dict(cfg, roi_layer=layer, out_channels=4, featmap_strides=STRIDES, finest_scale=7))
    feats = [torch.randn(2, 4, 128 // stride, 160 // stride) for stride in STRIDES]
    corners, sizes = torch.rand(num, 2) * 40, 2 ** (torch.rand(num, 1) * 5 + 2.3 + torch.rand(num, 2) / 4)
    rois = torch.cat([torch.randint(0, 2, (num, 1)).float(), corners, corners + sizes], dim=1)
    return extractor, feats, rois


@pytest.mark.parametrize('name', EXTRACTORS)
def test_pooling_from_every_level(tmp_path, name):
    extractor, feats, rois = pooling_case(EXTRACTORS[name])
    levels = pooling_case(EXTRACTORS['SingleRoIExtractor'])[0].map_roi_levels(rois, 4)
    assert levels.bincount(minlength=4).min() > 2
    expected = extractor(feats, rois)

    class Stacked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pooling = Pooling(extractor)

        def forward(self, *inputs):
            pooled = self.pooling(inputs[:-1], inputs[-1])
            return torch.stack(pooled, dim=1) if isinstance(pooled, tuple) else pooled

    torch.testing.assert_close(Stacked()(*feats, rois), expected, rtol=0, atol=1e-4)
    onnxruntime = pytest.importorskip('onnxruntime')
    path = str(tmp_path / 'pooling.onnx')
    names = ['n2', 'n3', 'n4', 'n5', 'rois']
    exporter = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    # The graph is made of few RoIs of one level, which must leave no trace in it.
    torch.onnx.export(
        Stacked(), (*feats, rois[levels == 1][:2]), path, input_names=names, dynamic_axes=dict(rois=[0]),
        opset_version=OPSET, **exporter,
    )  # fmt: skip
    graph = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    for count in (len(rois), 7, 1):
        (found,) = graph.run(None, {key: x.numpy() for key, x in zip(names, (*feats, rois[:count]))})
        torch.testing.assert_close(torch.from_numpy(found), expected[:count], rtol=0, atol=1e-4)


class OneHead:
    """What the suppression needs of a RoI head."""

    def __init__(self, num_classes, test_cfg):
        self.heads, self.test_cfg = [type('Head', (), dict(num_classes=num_classes))], test_cfg


@pytest.mark.parametrize('agnostic_boxes', [False, True])
@pytest.mark.parametrize('max_per_img', [-1, 30])
@pytest.mark.parametrize('class_agnostic', [False, True])
def test_suppression_is_mmdets(class_agnostic, max_per_img, agnostic_boxes):
    torch.manual_seed(0)
    nms = dict(type='nms', iou_threshold=0.4, **(dict(class_agnostic=True) if class_agnostic else {}))
    cfg = ConfigDict(nms=nms, score_thr=0.2, max_per_img=max_per_img)
    corners = torch.rand(2, 60, 1 if agnostic_boxes else 3, 2) * 60
    boxes = torch.cat([corners, corners + 10 + torch.rand_like(corners) * 30], dim=3).flatten(2)
    scores = torch.rand(2, 60, 3)
    found_boxes, found_scores, found_labels = RoIBoxes._suppress(OneHead(3, cfg), boxes, scores)
    for image in range(2):
        with_background = torch.cat([scores[image], torch.zeros(60, 1)], dim=1)
        dets, labels = multiclass_nms(boxes[image], with_background, 0.2, cfg.nms, max_per_img)
        count = len(labels)
        assert count == 30 if max_per_img > 0 else 30 < count < 180
        assert (found_scores[image, count:] < 0).all()
        torch.testing.assert_close(found_boxes[image, :count], dets[:, :4])
        torch.testing.assert_close(found_scores[image, :count], dets[:, 4])
        assert torch.equal(found_labels[image, :count], labels)


@pytest.mark.parametrize('flips', [False, True])
@pytest.mark.parametrize('pad_value', [0, 114])
def test_preprocessing_is_mmdets(pad_value, flips):
    """A batch of unequal images: order of the channels, mean, std, and what fills the rest."""
    mean, std = [103.0, 116.0, 123.0], [58.0, 57.0, 56.0]
    preprocessor = DetDataPreprocessor(
        mean=mean, std=std, bgr_to_rgb=flips, pad_value=pad_value, pad_size_divisor=32
    ).eval()
    sizes = [(50, 70), (64, 41)]
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]
    samples = [DetDataSample(metainfo=dict(img_shape=size), gt_instances=InstanceData()) for size in sizes]
    expected = preprocessor(dict(inputs=list(images), data_samples=samples), False)['inputs']
    batch = torch.full((2, 3, 64, 70), 9, dtype=torch.uint8)
    for one, image in zip(batch, images):
        one[:, : image.shape[1], : image.shape[2]] = image
    found = Preprocessing(preprocessor)(batch, torch.tensor(sizes))
    assert expected.shape == (2, 3, 64, 96)
    torch.testing.assert_close(found, expected)
