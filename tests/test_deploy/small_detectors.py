# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Small detectors that find many objects, and images for them."""

import cv2
import numpy as np
import torch
from mmengine.config import Config
from repository import ROOT

from mmdet.registry import MODELS

PANET = ROOT / 'configs/dsb2018/mask-rcnn_r18_panet_dsb2018.py'
FPN = ROOT / 'configs/dsb2018/mask-rcnn_r18_fpn_dsb2018.py'
NUM_CLASSES = 3
FEW_BOXES = {
    'model.test_cfg.rcnn.score_thr': 0.05,
    'model.test_cfg.rcnn.max_per_img': 20,
    'model.test_cfg.rpn.max_per_img': 40,
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


def pixels(size, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    return cv2.resize(coarse, size[::-1])


def write_image(path, size, seed):
    cv2.imwrite(str(path), pixels(size, seed))
    return path
