# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What :class:`~.end2end.EndToEnd` takes; everything else is refused by the name of its key."""

from typing import Any

import torch.nn as nn
from mmcv.ops import RoIAlign

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import ATSSHead, FCOSHead, RetinaHead, RPNHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, DynamicRoIHead, PISARoIHead, StandardRoIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MlvlPointGenerator
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor, PANetRoIHead
from mmpanet.models.inclusive_boxes import InclusiveAnchorGenerator, InclusiveBBoxCoder, InclusiveBoxRoIHead
from mmpanet.utils.errors import ExportError
from .roi_heads import each

ROI_HEADS = (PANetRoIHead, InclusiveBoxRoIHead, StandardRoIHead, CascadeRoIHead, DynamicRoIHead, PISARoIHead)
ONE_STAGE_HEADS = (RetinaHead, FCOSHead, ATSSHead)
PRIORS = (AnchorGenerator, InclusiveAnchorGenerator, MlvlPointGenerator)
# split_thr says when mmcv suppresses class by class, which changes no result.
NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'offset', 'split_thr'}
CODERS = (DeltaXYWHBBoxCoder, InclusiveBBoxCoder, DistancePointBBoxCoder)


def check_support(model: nn.Module) -> None:
    """Raise for a detector that has a part that the graph does not know.

    Args:
        model (nn.Module): A detector.

    Raises:
        ExportError: With the config key of the part, what it is, and what can be exported.
    """
    _check(model, 'model', TwoStageDetector, SingleStageDetector)
    _check(model.data_preprocessor, 'model.data_preprocessor', DetDataPreprocessor, exactly=True)
    if getattr(model.data_preprocessor, 'mean', None) is None:
        raise ExportError('model.data_preprocessor.mean=None: only a mean and a std can be exported')
    if isinstance(model, TwoStageDetector):
        if not model.with_rpn:
            raise ExportError('model.rpn_head=None: only a detector that makes its own proposals can be exported')
        _check_dense_head(model.rpn_head, 'model.rpn_head', 'model.test_cfg.rpn', RPNHead)
        if model.rpn_head.test_cfg.nms.get('class_agnostic', False):
            raise ExportError('model.test_cfg.rpn.nms.class_agnostic=True: only False can be exported')
        _check_roi_head(model.roi_head)
    else:
        _check_dense_head(model.bbox_head, 'model.bbox_head', 'model.test_cfg', *ONE_STAGE_HEADS)
        if model.bbox_head.test_cfg.get('nms_pre', -1) < 1:
            raise ExportError(
                'model.test_cfg.nms_pre must be at least 1: only a limited number of boxes can be exported'
            )


def _check_dense_head(head: nn.Module, key: str, cfg_key: str, *allowed: type) -> None:
    _check(head, key, *allowed, exactly=True)
    _check(head.prior_generator, f'{key}.anchor_generator', *PRIORS, exactly=True)
    _check_coder(head.bbox_coder, f'{key}.bbox_coder')
    if not head.use_sigmoid_cls:
        raise ExportError(f'{key}.loss_cls.use_sigmoid=False: only True can be exported')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ExportError(f'{key}.loss_cls={type(head.loss_cls).__name__}: only a sigmoid can be exported')
    _check_nms(head.test_cfg.nms, f'{cfg_key}.nms')


def _check_roi_head(roi_head: nn.Module) -> None:
    key = 'model.roi_head'
    _check(roi_head, key, *ROI_HEADS, exactly=True)
    if roi_head.with_shared_head:
        raise ExportError(f'{key}.shared_head={type(roi_head.shared_head).__name__}: only None can be exported')
    for branch in ('bbox', 'mask') if roi_head.with_mask else ('bbox',):
        for extractor in each(getattr(roi_head, f'{branch}_roi_extractor')):
            _check_extractor(extractor, f'{key}.{branch}_roi_extractor')
    for head in each(roi_head.bbox_head):
        if head.custom_cls_channels or getattr(head.loss_cls, 'use_sigmoid', False):
            raise ExportError(
                f'{key}.bbox_head.loss_cls={type(head.loss_cls).__name__} has an activation of its own: only a softmax '
                'can be exported'
            )
        _check_coder(head.bbox_coder, f'{key}.bbox_head.bbox_coder')
    if roi_head.with_mask:
        for head in each(roi_head.mask_head):
            _check(head, f'{key}.mask_head', FCNMaskHead)
    _check_nms(roi_head.test_cfg.nms, 'model.test_cfg.rcnn.nms')


def _check_extractor(extractor: nn.Module, key: str) -> None:
    _check(extractor, key, AdaptiveFeaturePooling, SingleRoIExtractor, FastSingleRoIExtractor, exactly=True)
    for layer in extractor.roi_layers:
        _check(layer, f'{key}.roi_layer', RoIAlign, exactly=True)
        if layer.pool_mode != 'avg':
            raise ExportError(f"{key}.roi_layer.pool_mode={layer.pool_mode!r}: only 'avg' can be exported")


def _check_coder(coder: Any, key: str) -> None:
    _check(coder, key, *CODERS, exactly=True)


def _check_nms(nms: dict, key: str) -> None:
    kind = nms.get('type', 'nms')
    if kind != 'nms':
        raise ExportError(f"{key}.type={kind!r}: only 'nms' can be exported")
    unknown = sorted(set(nms) - NMS_KEYS)
    if unknown:
        raise ExportError(f'{key}.{unknown[0]}={nms[unknown[0]]!r}: only {", ".join(sorted(NMS_KEYS))} can be exported')


def _check(part: object, key: str, *allowed: type, exactly: bool = False) -> None:
    fits = type(part) in allowed if exactly else isinstance(part, allowed)
    if not fits:
        names = ' or '.join(kind.__name__ for kind in allowed)
        raise ExportError(f'{key} is a {type(part).__name__}: only {names} can be exported')
