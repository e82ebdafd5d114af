# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Exported graphs against PyTorch, and the runtime without PyTorch against ``model.test_step``."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmengine.config import Config
from mmengine.dataset import Compose
from repository import ROOT

from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.registry import MODELS
from mmpanet.deploy import ExportError, export_detector, onnx_detector, verify
from mmpanet.deploy.export import describe

PANET = ROOT / 'configs/dsb2018/mask-rcnn_r18_panet_dsb2018.py'


def build(path, **options):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        {
            'model.test_cfg.rcnn.score_thr': 0.2,
            'model.test_cfg.rcnn.max_per_img': 30,
            'model.test_cfg.rpn.max_per_img': 60,
            **options,
        }
    )
    model = MODELS.build(cfg.model)
    model.init_weights()
    # A fresh detector finds nothing sure: spread its scores.
    torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.2)
    torch.nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.2)
    torch.nn.init.normal_(model.rpn_head.rpn_cls.weight, std=0.1)
    model.dataset_meta = dict(classes=('nucleus',))
    return model.eval(), cfg


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Of sizes that are no multiples of anything."""
    folder = tmp_path_factory.mktemp('images')
    random = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate([(97, 131), (120, 70)]):
        image = cv2.resize(random.integers(0, 256, (9, 9, 3), np.uint8), (width, height))
        paths.append(str(folder / f'{i}.png'))
        cv2.imwrite(paths[-1], image)
    return paths


def test_onnxruntime_gives_the_same_numbers(tmp_path, images):
    model, cfg = build(PANET)
    export_detector(model, cfg, tmp_path)
    worst = verify(model, cfg, tmp_path, images)
    assert worst['detections'] > 10 and worst['unmatched'] == 0
    assert max(worst[name] for name in ('maps', 'rpn', 'box', 'mask', 'scores')) < 1e-4
    assert worst['bboxes'] < 1e-2 and worst['masks'] < 1e-3


def test_the_export_runs_without_pytorch(tmp_path, images):
    model, cfg = build(PANET)
    export_detector(model, cfg, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        'dense.onnx',
        'box.onnx',
        'mask.onnx',
        'detector.json',
        'onnx_detector.py',
    }
    program = (
        'import sys; sys.modules.update(torch=None, mmdet=None, mmcv=None, mmengine=None, mmpanet=None)\n'
        f'sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ["demo", *{images!r}, "--score-thr", "0.2", '
        f'"--out", {str(tmp_path / "drawn")!r}]\nimport onnx_detector; onnx_detector.main()'
    )
    printed = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.count('nucleus') > 10
    assert len(list((tmp_path / 'drawn').iterdir())) == len(images)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model.test_cfg.rcnn.nms.type': 'soft_nms'}, r"model\.test_cfg\.rcnn\.nms\.type='soft_nms': only 'nms'"),
        (
            {'model.rpn_head.bbox_coder.type': 'LegacyDeltaXYWHBBoxCoder'},
            r'model\.rpn_head\.bbox_coder is a LegacyDeltaXYWHBBoxCoder: only DeltaXYWHBBoxCoder',
        ),
        (
            {'model.roi_head.mask_roi_extractor.roi_layer.pool_mode': 'max'},
            r"mask_roi_extractor\.roi_layer\.pool_mode='max': only 'avg'",
        ),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_written(tmp_path, options, message):
    model, cfg = build(PANET, **options)
    with pytest.raises(ExportError, match=message):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_other_detectors_are_refused(tmp_path):
    with pytest.raises(ExportError, match='model is a Linear: only TwoStageDetector'):
        export_detector(torch.nn.Linear(1, 1), Config(), tmp_path)


# The runtime's own pieces against mmcv's and mmdet's


def test_nms_against_mmcv():
    boxes = torch.rand(300, 4) * 50
    boxes[:, 2:] += boxes[:, :2]
    scores, groups = torch.rand(300), torch.randint(3, (300,))
    for class_agnostic in (False, True):
        settings = dict(iou_threshold=0.5, class_agnostic=class_agnostic)
        expected = batched_nms(boxes, scores, groups, dict(type='nms', iou_threshold=0.5), class_agnostic)[1]
        found = onnx_detector.batched_nms(boxes.numpy(), scores.numpy(), groups.numpy(), settings)
        assert 20 < len(found) < 280 and found.tolist() == expected.tolist()


def test_many_boxes_are_suppressed_group_by_group(monkeypatch):
    boxes = np.random.default_rng(0).random((300, 4), np.float32) * 50
    boxes[:, 2:] += boxes[:, :2]
    scores, groups = np.random.default_rng(1).random(300), np.arange(300) % 3
    settings = dict(iou_threshold=0.5, class_agnostic=False)
    at_once = onnx_detector.batched_nms(boxes, scores, groups, settings)
    monkeypatch.setattr(onnx_detector, 'MANY_BOXES', 100)
    assert onnx_detector.batched_nms(boxes, scores, groups, settings).tolist() == at_once.tolist()


@pytest.mark.parametrize(
    'box', [[3.2, 5.1, 40.7, 30.3], [-4.0, -9.0, 20.0, 70.0], [10.0, 10.0, 11.0, 10.5], [0, 0, 60, 50]]
)
def test_pasting_against_mmdet(box):
    mask = torch.rand(1, 1, 28, 28)
    part, where = _do_paste_mask(mask, torch.tensor([box]), 50, 60, skip_empty=True)
    expected = torch.zeros(50, 60)
    expected[where] = part[0]
    found = onnx_detector.paste(mask[0, 0].numpy(), np.float32(box), (50, 60))
    assert expected.max() > 0.1
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize(
    'resize', [dict(scale=(200, 120), keep_ratio=True), dict(scale=(90, 70)), dict(scale_factor=1.3)]
)
def test_preprocessing_against_the_test_pipeline(tmp_path, images, resize):
    model, cfg = build(PANET)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', **resize),
        dict(type='PackDetInputs', meta_keys=('img_shape', 'scale_factor')),
    ]
    cfg.test_dataloader.dataset.pipeline = pipeline
    detector = object.__new__(onnx_detector.ONNXDetector)
    detector.settings = json.loads(json.dumps(describe(model, cfg)))
    for path in images:
        data = Compose(pipeline)(dict(img_path=path))
        data = model.data_preprocessor(dict(inputs=[data['inputs']], data_samples=[data['data_samples']]))
        x, shape, scale = detector.preprocess(cv2.imread(path))
        assert shape == data['data_samples'][0].img_shape
        np.testing.assert_allclose(scale, data['data_samples'][0].scale_factor, rtol=1e-6)
        np.testing.assert_allclose(x, data['inputs'].numpy(), atol=1e-5)
