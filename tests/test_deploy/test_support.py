# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What no graph can hold is refused by the name of its key, before anything is written."""

import pytest
import torch
from mmengine.config import Config
from small_detectors import build, config, one_stage

from mmpanet.deploy import ExportError, export_detector


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model.test_cfg.rcnn.nms.type': 'soft_nms'}, r"model\.test_cfg\.rcnn\.nms\.type='soft_nms': only 'nms'"),
        (
            {'model.test_cfg.rpn.nms.max_num': 5},
            r'model\.test_cfg\.rpn\.nms\.max_num=5: only class_agnostic, iou_threshold',
        ),
        (
            {'model.rpn_head.bbox_coder.type': 'LegacyDeltaXYWHBBoxCoder'},
            r'model\.rpn_head\.bbox_coder is a LegacyDeltaXYWHBBoxCoder: only DeltaXYWHBBoxCoder',
        ),
        (
            {'model.roi_head.mask_roi_extractor.roi_layer.pool_mode': 'max'},
            r"mask_roi_extractor\.roi_layer\.pool_mode='max': only 'avg'",
        ),
        ({'model.data_preprocessor.mean': None, 'model.data_preprocessor.std': None}, r'data_preprocessor\.mean=None'),
        ({'model.roi_head.bbox_head.with_reg': False}, r'bbox_head\.with_reg=False: only True'),
        (
            {'model.roi_head.bbox_head.bbox_coder.use_box_type': True},
            r'bbox_head\.bbox_coder\.use_box_type=True: only False',
        ),
        (
            {'model.rpn_head.anchor_generator.use_box_type': True},
            r'rpn_head\.anchor_generator\.use_box_type=True: only False',
        ),
        ({'model.test_cfg.rpn.max_per_img': -1}, r'model\.test_cfg\.rpn\.max_per_img=-1 must be at least 1'),
        ({'model.test_cfg.rcnn.max_per_img': None}, r'model\.test_cfg\.rcnn\.max_per_img=None must be a number'),
        ({'model.test_cfg.rcnn.mask_thr_binary': None}, r'rcnn\.mask_thr_binary=None must be a number'),
        ({'model.test_cfg.rcnn.nms': dict(type='nms', _delete_=True)}, r'rcnn\.nms\.iou_threshold=None must be a num'),
        ({'model.test_cfg.rpn.nms': None}, r"rpn\.nms=None must be a dict such as dict\(type='nms'"),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_written(tmp_path, options, message):
    cfg = config()
    model = build(cfg, **options)
    with pytest.raises(ExportError, match=message):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['predict', 'extract_feat'])
def test_a_detector_with_a_way_of_its_own_is_refused(tmp_path, name):
    """Such as PanopticFPN, whose segments no graph would hold."""
    cfg = config()
    model = build(cfg)
    kind = type(model)
    model.__class__ = type('Panoptic', (kind,), {name: lambda self, *args: getattr(kind, name)(self, *args)})
    with pytest.raises(ExportError, match=rf'model\.type=Panoptic has a {name} of its own: only .* TwoStageDetector'):
        export_detector(model, cfg, tmp_path / 'out')


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(min_bbox_size=8), r'min_bbox_size=8: only 0 and less'),
        (dict(nms_pre=None), r'nms_pre=None must be a number'),
        (dict(max_per_img=0), r'max_per_img=0 must be at least 1'),
    ],
)
def test_what_a_graph_of_one_stage_cannot_do(tmp_path, options, message):
    cfg = one_stage()
    model = build(cfg, **{f'model.test_cfg.{name}': value for name, value in options.items()})
    with pytest.raises(ExportError, match=message):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_other_detectors_are_refused(tmp_path):
    with pytest.raises(ExportError, match='model is a Linear: only TwoStageDetector or SingleStageDetector'):
        export_detector(torch.nn.Linear(1, 1), Config(), tmp_path)


def test_other_pipelines_are_refused(tmp_path):
    cfg = config()
    cfg.test_dataloader.dataset.pipeline.insert(1, dict(type='CenterCrop', crop_size=32))
    with pytest.raises(ExportError, match=r"test_pipeline has \['CenterCrop'\]"):
        export_detector(build(cfg), cfg, tmp_path / 'out')
    assert not (tmp_path / 'out' / 'end2end.onnx').exists()
