# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""PANet's modules, one file for each part of the paper, registered in mmdet's registries."""

from .adaptive_feature_pooling import AdaptiveFeaturePooling
from .bbox_heads import PANetShared2FCBBoxHead, PANetShared4Conv1FCBBoxHead
from .fast_single_roi_extractor import FastSingleRoIExtractor
from .fc_fusion_mask_head import FCFusionMaskHead
from .inclusive_boxes import (
    InclusiveAnchorGenerator,
    InclusiveBBoxCoder,
    InclusiveBBoxOverlaps2D,
    InclusiveBoxRoIHead,
    ToInclusiveBoxes,
)
from .panet_neck import PANetNeck
from .panet_roi_head import PANetRoIHead
from .rotated_adaptive_feature_pooling import RotatedAdaptiveFeaturePooling

# The former names of the classes for inclusive boxes.
DetectronAnchorGenerator = InclusiveAnchorGenerator
DetectronBBoxCoder = InclusiveBBoxCoder
DetectronOverlaps2D = InclusiveBBoxOverlaps2D
DetectronRoIHead = InclusiveBoxRoIHead
ToDetectronBoxes = ToInclusiveBoxes

__all__ = [
    'AdaptiveFeaturePooling',
    'FastSingleRoIExtractor',
    'FCFusionMaskHead',
    'InclusiveAnchorGenerator',
    'InclusiveBBoxCoder',
    'InclusiveBBoxOverlaps2D',
    'InclusiveBoxRoIHead',
    'PANetNeck',
    'PANetRoIHead',
    'PANetShared2FCBBoxHead',
    'PANetShared4Conv1FCBBoxHead',
    'RotatedAdaptiveFeaturePooling',
    'ToInclusiveBoxes',
]
