# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What :class:`~.end2end.EndToEnd` takes; everything else is refused by the name of its key."""

from typing import Any

import torch.nn as nn
from mmcv.ops import RoIAlign

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.models.dense_heads import ATSSHead, FCOSHead, RetinaHead, RPNHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, DynamicRoIHead, PISARoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder, MlvlPointGenerator
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor, PANetRoIHead
from mmpanet.models.inclusive_boxes import InclusiveAnchorGenerator, InclusiveBBoxCoder, InclusiveBoxRoIHead
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ExportError
from .roi_heads import each

ROI_HEADS = (PANetRoIHead, InclusiveBoxRoIHead, StandardRoIHead, CascadeRoIHead, DynamicRoIHead, PISARoIHead)
ONE_STAGE_HEADS = (RetinaHead, FCOSHead, ATSSHead)
PRIORS = (AnchorGenerator, InclusiveAnchorGenerator, MlvlPointGenerator)
# From split_thr boxes on, mmcv suppresses class by class, which changes no result unless class_agnostic is True.
NMS_KEYS = {'type', 'iou_threshold', 'class_agnostic', 'offset', 'split_thr'}
METHODS_OF_BOX_HEADS = ('predict_by_feat', '_predict_by_feat_single', 'regress_by_class', 'refine_bboxes')
CODERS = (DeltaXYWHBBoxCoder, InclusiveBBoxCoder, DistancePointBBoxCoder)


def check_support(model: nn.Module) -> None:
    """Raise for a detector that has a part that the graph does not know.

    Args:
        model (nn.Module): A detector.

    Raises:
        ExportError: With the config key of the part, what it is, and what can be exported.
    """
    _check(model, 'model', TwoStageDetector, SingleStageDetector)
    detector = TwoStageDetector if isinstance(model, TwoStageDetector) else SingleStageDetector
    _check_methods(model, 'model.type', detector, 'extract_feat', 'predict')
    _check(model.data_preprocessor, 'model.data_preprocessor', DetDataPreprocessor, exactly=True)
    if getattr(model.data_preprocessor, 'mean', None) is None:
        raise ExportError('model.data_preprocessor.mean=None: only a mean and a std can be exported')
    if isinstance(model, TwoStageDetector):
        if not model.with_rpn:
            raise ExportError('model.rpn_head=None: only a detector that makes its own proposals can be exported')
        _check_dense_head(model.rpn_head, 'model.rpn_head', 'model.test_cfg.rpn', RPNHead)
        if model.rpn_head.test_cfg.nms.get('class_agnostic', False):
            raise ExportError('model.test_cfg.rpn.nms.class_agnostic=True: only False can be exported')
        _check_count(model.rpn_head.test_cfg, 'model.test_cfg.rpn', 'max_per_img')
        _check_roi_head(model.roi_head)
    else:
        _check_dense_head(
            model.bbox_head, 'model.bbox_head', 'model.test_cfg', *ONE_STAGE_HEADS, in_original_image=True
        )
        for name in ('nms_pre', 'max_per_img'):
            _check_count(model.bbox_head.test_cfg, 'model.test_cfg', name)
        smallest = model.bbox_head.test_cfg.get('min_bbox_size', -1)
        if smallest > 0:
            raise ExportError(
                f'model.test_cfg.min_bbox_size={smallest!r}: only 0 and less can be exported, because it counts pixels '
                'of the original image, whose size a graph does not know'
            )


def _check_methods(part: nn.Module, key: str, base: type, *names: str) -> None:
    """Raise for a subclass that makes features or detections in its own way, such as PanopticFPN."""
    for name in names:
        if getattr(type(part), name) is not getattr(base, name):
            raise ExportError(
                f'{key}={type(part).__name__} has a {name} of its own: only that of {base.__name__} can be exported'
            )


def _check_dense_head(head: nn.Module, key: str, cfg_key: str, *allowed: type, in_original_image: bool = False) -> None:
    _check(head, key, *allowed, exactly=True)
    _check(head.prior_generator, f'{key}.anchor_generator', *PRIORS, exactly=True)
    _check_box_type(head.prior_generator, f'{key}.anchor_generator')
    _check_coder(head.bbox_coder, f'{key}.bbox_coder')
    if not head.use_sigmoid_cls:
        raise ExportError(f'{key}.loss_cls.use_sigmoid=False: only True can be exported')
    if getattr(head.loss_cls, 'custom_cls_channels', False):
        raise ExportError(f'{key}.loss_cls={type(head.loss_cls).__name__}: only a sigmoid can be exported')
    _check_nms(head.test_cfg, cfg_key, in_original_image)


def _check_roi_head(roi_head: nn.Module) -> None:
    key = 'model.roi_head'
    _check(roi_head, key, *ROI_HEADS, exactly=True)
    if roi_head.with_shared_head:
        raise ExportError(f'{key}.shared_head={type(roi_head.shared_head).__name__}: only None can be exported')
    for branch in ('bbox', 'mask') if roi_head.with_mask else ('bbox',):
        for extractor in each(getattr(roi_head, f'{branch}_roi_extractor')):
            _check_extractor(extractor, f'{key}.{branch}_roi_extractor')
    for head in each(roi_head.bbox_head):
        if type(head) is not BBoxHead:
            _check(head, f'{key}.bbox_head', ConvFCBBoxHead)
        _check_methods(head, f'{key}.bbox_head.type', BBoxHead, *METHODS_OF_BOX_HEADS)
        if head.custom_cls_channels or getattr(head.loss_cls, 'use_sigmoid', False):
            raise ExportError(
                f'{key}.bbox_head.loss_cls={type(head.loss_cls).__name__} has an activation of its own: only a softmax '
                'can be exported'
            )
        for name in ('with_cls', 'with_reg'):
            if not getattr(head, name):
                raise ExportError(f'{key}.bbox_head.{name}=False: only True can be exported')
        _check_coder(head.bbox_coder, f'{key}.bbox_head.bbox_coder')
    if roi_head.with_mask:
        for head in each(roi_head.mask_head):
            _check(head, f'{key}.mask_head', FCNMaskHead)
            _check_methods(head, f'{key}.mask_head.type', FCNMaskHead, 'predict_by_feat', '_predict_by_feat_single')
    _check_nms(roi_head.test_cfg, 'model.test_cfg.rcnn', in_original_image=not roi_head.with_mask)
    for name in ('score_thr', 'max_per_img'):
        _number(roi_head.test_cfg, 'model.test_cfg.rcnn', name)
    if roi_head.with_mask and _number(roi_head.test_cfg, 'model.test_cfg.rcnn', 'mask_thr_binary') == 0:
        raise ExportError(
            'model.test_cfg.rcnn.mask_thr_binary=0 must be above 0, or below it for probabilities: with 0 each mask is '
            'all that is drawn of its box'
        )


def _check_extractor(extractor: nn.Module, key: str) -> None:
    _check(extractor, key, AdaptiveFeaturePooling, SingleRoIExtractor, FastSingleRoIExtractor, exactly=True)
    for layer in extractor.roi_layers:
        _check(layer, f'{key}.roi_layer', RoIAlign, exactly=True)
        if layer.pool_mode != 'avg':
            raise ExportError(f"{key}.roi_layer.pool_mode={layer.pool_mode!r}: only 'avg' can be exported")


def _check_coder(coder: Any, key: str) -> None:
    _check(coder, key, *CODERS, exactly=True)
    _check_box_type(coder, key)


def _check_box_type(part: Any, key: str) -> None:
    if getattr(part, 'use_box_type', False):
        raise ExportError(f'{key}.use_box_type=True: only False can be exported')


def _number(cfg: dict, key: str, name: str) -> float:
    value = cfg.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ExportError(f'{key}.{name}={value!r} must be a number')
    return value


def _check_count(cfg: dict, key: str, name: str) -> None:
    if _number(cfg, key, name) < 1:
        raise ExportError(f'{key}.{name}={cfg[name]!r} must be at least 1: a graph has a limited number of boxes')


def _check_nms(cfg: dict, key: str, in_original_image: bool = False) -> None:
    key, nms = f'{key}.nms', cfg.get('nms')
    if not isinstance(nms, dict):
        raise ExportError(f"{key}={nms!r} must be a dict such as dict(type='nms', iou_threshold=0.5)")
    kind = nms.get('type', 'nms')
    if type_name(kind) != 'nms':
        raise ExportError(f"{key}.type={kind!r}: only 'nms' can be exported")
    unknown = sorted(set(nms) - NMS_KEYS)
    if unknown:
        raise ExportError(f'{key}.{unknown[0]}={nms[unknown[0]]!r}: only {", ".join(sorted(NMS_KEYS))} can be exported')
    _number(nms, key, 'iou_threshold')
    if nms.get('class_agnostic') and 'split_thr' in nms:
        raise ExportError(
            f'{key}.split_thr={nms["split_thr"]!r} with class_agnostic=True: only one of them can be exported, because '
            'mmcv suppresses class by class from so many boxes on'
        )
    if nms.get('offset') and in_original_image:
        raise ExportError(
            f'{key}.offset={nms["offset"]!r}: only 0 can be exported for a detector without masks, because it counts '
            'pixels of the original image, whose size a graph does not know'
        )


def _check(part: object, key: str, *allowed: type, exactly: bool = False) -> None:
    fits = type(part) in allowed if exactly else isinstance(part, allowed)
    if not fits:
        names = ' or '.join(kind.__name__ for kind in allowed)
        raise ExportError(f'{key} is a {type(part).__name__}: only {names} can be exported')
