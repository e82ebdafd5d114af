# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Small detectors that find many objects, and images for them."""

import cv2
import numpy as np
import torch
from mmengine.config import Config
from repository import ROOT

from mmdet.registry import MODELS
from mmpanet.swap import swap_config

PANET = ROOT / 'configs/dsb2018/mask-rcnn_r18_panet_dsb2018.py'
FPN = ROOT / 'configs/dsb2018/mask-rcnn_r18_fpn_dsb2018.py'
NUM_CLASSES = 3
FEW_BOXES = {
    'model.test_cfg.rcnn.score_thr': 0.05,
    'model.test_cfg.rcnn.max_per_img': 20,
    'model.test_cfg.rpn.max_per_img': 40,
}

ONE_STAGE = {
    'RetinaHead': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'FCOSHead': 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'ATSSHead': 'mmdet::atss/atss_r50_fpn_1x_coco.py',
}

SPREAD = ('rpn_cls.weight', 'fc_reg.weight', 'retina_cls.weight', 'conv_cls.weight', 'atss_cls.weight')


def build(cfg, **options):
    """A detector that finds many objects of several classes."""
    torch.manual_seed(0)
    cfg.merge_from_dict({**FEW_BOXES, **options})
    model = MODELS.build(cfg.model)
    model.init_weights()
    for name, parameter in model.named_parameters():
        # A fresh detector is sure of nothing: spread its scores and its boxes.
        if name.endswith(('fc_cls.weight', 'conv_logits.weight')):
            torch.nn.init.normal_(parameter, std=0.3)
        elif name.endswith(SPREAD):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def config(path=PANET):
    cfg = Config.fromfile(path)
    cfg.model.roi_head.bbox_head.num_classes = NUM_CLASSES
    cfg.model.roi_head.mask_head.num_classes = NUM_CLASSES
    return cfg


def with_roi_head(path, kind):
    """The config with another RoI head of mmdet's, of the same parts."""
    cfg = config(path)
    roi_head = cfg.model.roi_head
    roi_head.type = kind
    if kind == 'CascadeRoIHead':
        roi_head.num_stages, roi_head.stage_loss_weights = 2, [1, 0.5]
        # The first stage regresses boxes for each class, the second for all classes alike.
        roi_head.bbox_head = [dict(roi_head.bbox_head, reg_class_agnostic=agnostic) for agnostic in (False, True)]
        cfg.model.train_cfg.rcnn = [cfg.model.train_cfg.rcnn] * 2
    if kind == 'DynamicRoIHead':
        cfg.model.train_cfg.rcnn.dynamic_rcnn = dict(iou_topk=75, beta_topk=10, update_iter_interval=1)
        cfg.model.train_cfg.rcnn.dynamic_rcnn.update(initial_iou=0.4, initial_beta=1.0)
        roi_head.bbox_head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0)
    if kind == 'PISARoIHead':
        cfg.model.train_cfg.rcnn.isr, cfg.model.train_cfg.rcnn.carl = dict(k=2, bias=0), dict(k=1, bias=0.2)
    return cfg


def one_stage(kind='RetinaHead'):
    """A small one-stage detector with PANet's neck."""
    cfg = swap_config(ONE_STAGE[kind])
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=16, out_indices=(0, 1, 2, 3))
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=64)
    cfg.model.bbox_head.update(in_channels=64, feat_channels=64, num_classes=NUM_CLASSES)
    cfg.test_dataloader.dataset.pipeline = config().test_dataloader.dataset.pipeline
    return cfg


def authors_boxes():
    """A small PANet with the authors' anchors, coder and RoI head, whose boxes name their last pixel."""
    cfg = config()
    official = Config.fromfile(ROOT / 'configs/official/mask-rcnn_r50-caffe_panet-gn_ms-2x_coco.py').model
    cfg.model.rpn_head.anchor_generator.type = official.rpn_head.anchor_generator.type
    cfg.model.rpn_head.anchor_generator.center_offset = 0.5
    cfg.model.rpn_head.bbox_coder = official.rpn_head.bbox_coder
    cfg.model.roi_head.type = official.roi_head.type
    cfg.model.roi_head.bbox_head.bbox_coder = official.roi_head.bbox_head.bbox_coder
    for branch in ('bbox', 'mask'):
        cfg.model.roi_head[f'{branch}_roi_extractor'].roi_layer.aligned = False
    for stage in ('rpn', 'rcnn'):
        cfg.model.test_cfg[stage].nms = official.test_cfg[stage].nms
        assert cfg.model.test_cfg[stage].nms.offset == 1
    return cfg


def enlarge(cfg, scale):
    """Let the test pipeline enlarge images."""
    for step in cfg.test_pipeline:
        if step['type'] == 'Resize':
            step['scale_factor'] = scale
    cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
    return cfg


def pixels(size, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return cv2.resize(coarse, size[::-1])


def write_image(path, size, seed):
    cv2.imwrite(str(path), pixels(size, seed))
    return path
