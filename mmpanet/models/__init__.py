# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .adaptive_feature_pooling import AdaptiveFeaturePooling
from .bbox_heads import PANetShared2FCBBoxHead, PANetShared4Conv1FCBBoxHead
from .fast_single_roi_extractor import FastSingleRoIExtractor
from .fc_fusion_mask_head import FCFusionMaskHead
from .inclusive_boxes.anchor_generator import DetectronAnchorGenerator
from .inclusive_boxes.boxes import DetectronBBoxCoder, DetectronOverlaps2D, DetectronRoIHead, ToDetectronBoxes
from .panet_neck import PANetNeck
from .panet_roi_head import PANetRoIHead

__all__ = [
    'AdaptiveFeaturePooling',
    'DetectronAnchorGenerator',
    'DetectronBBoxCoder',
    'DetectronOverlaps2D',
    'DetectronRoIHead',
    'FastSingleRoIExtractor',
    'FCFusionMaskHead',
    'PANetNeck',
    'PANetRoIHead',
    'PANetShared2FCBBoxHead',
    'PANetShared4Conv1FCBBoxHead',
    'ToDetectronBoxes',
]
