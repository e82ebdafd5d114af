# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What no graph can hold is refused by the name of its key, before anything is written."""

import pytest
import torch
from mmcv.ops import nms
from mmengine.config import Config
from small_detectors import FPN, build, config, one_stage

from mmdet.registry import MODELS
from mmpanet.deploy import ExportError, export, export_detector

SABL = dict(
    type='SABLHead',
    num_classes=3,
    cls_in_channels=64,
    reg_in_channels=64,
    roi_feat_size=7,
    loss_cls=dict(type='CrossEntropyLoss'),
    loss_bbox_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
    loss_bbox_reg=dict(type='SmoothL1Loss'),
)


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
        ({'model.test_cfg.rcnn.mask_thr_binary': 0}, r'rcnn\.mask_thr_binary=0 must be above 0'),
        ({'model.test_cfg.rcnn.nms': dict(type='nms', _delete_=True)}, r'rcnn\.nms\.iou_threshold=None must be a num'),
        ({'model.test_cfg.rpn.nms': None}, r"rpn\.nms=None must be a dict such as dict\(type='nms'"),
        (
            {'model.test_cfg.rcnn.nms': dict(type='nms', iou_threshold=0.5, class_agnostic=True, split_thr=100)},
            r'rcnn\.nms\.split_thr=100 with class_agnostic=True: only one of them',
        ),
        (
            {'model.test_cfg.rcnn.nms.offset': 1, 'model.roi_head.mask_head': None},
            r'rcnn\.nms\.offset=1: only 0 .* a detector without masks',
        ),
    ],
)
def test_what_cannot_be_exported_is_named_and_nothing_written(tmp_path, options, message):
    cfg = config()
    model = build(cfg, **options)
    with pytest.raises(ExportError, match=message):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_nms_may_be_the_function_of_mmcv(tmp_path):
    cfg = config(FPN)
    model = build(cfg, **{'model.test_cfg.rcnn.nms.type': nms})
    assert export_detector(model, cfg, tmp_path, paste_masks=False)[0].is_file()


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
    'part, name',
    [('bbox_head', '_predict_by_feat_single'), ('bbox_head', 'regress_by_class'), ('mask_head', 'predict_by_feat')],
)
def test_a_head_with_a_way_of_its_own_is_refused(tmp_path, part, name):
    cfg = config()
    model = build(cfg)
    head = getattr(model.roi_head, part)
    kind = type(head)
    head.__class__ = type('MyHead', (kind,), {name: lambda self, *args: getattr(kind, name)(self, *args)})
    with pytest.raises(ExportError, match=rf'roi_head\.{part}\.type=MyHead has a {name} of its own'):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_what_the_exporter_of_torch_refuses_is_one_error(tmp_path):
    cfg = config(FPN)
    cfg.model.neck = [cfg.model.neck, dict(type='BFP', in_channels=64, num_levels=5, refine_level=2)]
    with pytest.raises(ExportError, match='a part of this model cannot be exported: .*adaptive'):
        export_detector(build(cfg), cfg, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(min_bbox_size=8), r'min_bbox_size=8: only 0 and less'),
        (dict(nms_pre=None), r'nms_pre=None must be a number'),
        (dict(max_per_img=0), r'max_per_img=0 must be at least 1'),
        (dict(nms=dict(type='nms', iou_threshold=0.5, offset=1)), r'nms\.offset=1: only 0'),
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


def swin():
    return dict(type='SwinTransformer', embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])


def resnet_with_dcn():
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
    last_alone = (False, False, False, True)
    return dict(type='ResNeXt', depth=50, base_channels=16, groups=4, base_width=4, dcn=dcn, stage_with_dcn=last_alone)


@pytest.mark.parametrize(
    'backbone, channels, message',
    [
        (
            swin(),
            [16, 32, 64, 128],
            r'backbones/swin\.py, line \d+, makes a number out of a tensor|transformer/utils\.py',
        ),
        (
            resnet_with_dcn(),
            [64, 128, 256, 512],
            r'backbone\.layer4\..* needs the operator mmcv::MMCVModulatedDeformConv2d',
        ),
    ],
    ids=['Swin', 'DCN'],
)
def test_a_backbone_that_no_graph_can_hold_is_refused(tmp_path, backbone, channels, message):
    cfg = config()
    cfg.model.backbone = backbone
    cfg.model.neck.in_channels = channels
    with pytest.raises(ExportError, match=message):
        export_detector(build(cfg), cfg, tmp_path / 'out')
    assert not list((tmp_path / 'out').iterdir())


def test_a_box_head_without_classes_and_deltas_is_refused(tmp_path):
    cfg = config(FPN)
    model = build(cfg)
    model.roi_head.bbox_head = MODELS.build(SABL)
    with pytest.raises(ExportError, match=r'model\.roi_head\.bbox_head is a SABLHead: only ConvFCBBoxHead'):
        export_detector(model, cfg, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_the_settings_say_how_images_are_resized(tmp_path):
    cfg = config(FPN)
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[1] = dict(type='Resize', scale=(200, 100), keep_ratio=True, interpolation='nearest', backend='pillow')
    assert export._resize(cfg) == dict(scale=(200, 100), keep_ratio=True, interpolation='nearest', backend='pillow')
