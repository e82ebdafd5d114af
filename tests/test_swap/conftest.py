# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.config import Config

from mmdet.registry import MODELS
from mmpanet.utils.configs import load_config


@pytest.fixture(scope='session')
def zoo_config():
    """Load MMDetection's configs by name. Each is loaded once, and each test gets a copy."""
    loaded = {}

    def load(name):
        if name not in loaded:
            loaded[name] = load_config(f'mmdet::{name}')
        return copy.deepcopy(loaded[name])

    return load


def make_small(model):
    """Shrink the config of a Mask R-CNN to about 10^5 parameters, in place."""
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    roi_head = model.roi_head
    for head in roi_head.bbox_head if isinstance(roi_head.bbox_head, list) else [roi_head.bbox_head]:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3)
    for extractor in (roi_head.bbox_roi_extractor, roi_head.mask_roi_extractor):
        extractor.update(out_channels=16)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=5)


@pytest.fixture
def small_config(zoo_config):
    """A Mask R-CNN with about 10^5 parameters."""
    cfg = Config(dict(model=zoo_config('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model, default_scope='mmdet'))
    make_small(cfg.model)
    return cfg


@pytest.fixture
def trained_like(small_config):
    """A model of this config. Like in a trained model, no weight is constant."""
    model = MODELS.build(small_config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()
