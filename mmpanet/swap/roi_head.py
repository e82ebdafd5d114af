# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrite the RoI head of a model: adaptive feature pooling, PANet's box heads and fully-connected fusion."""

from typing import Any, List, Optional, Tuple

from mmdet.models.roi_heads import (
    CascadeRoIHead,
    DynamicRoIHead,
    MaskScoringRoIHead,
    PISARoIHead,
    SingleRoIExtractor,
    StandardRoIHead,
)
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmpanet.models import (
    AdaptiveFeaturePooling,
    FastSingleRoIExtractor,
    FCFusionMaskHead,
    PANetRoIHead,
    PANetShared2FCBBoxHead,
    PANetShared4Conv1FCBBoxHead,
    RotatedAdaptiveFeaturePooling,
)
from mmpanet.models.rotated_adaptive_feature_pooling import use_new_names
from mmpanet.utils.configs import type_name
from .options import OFFICIAL_SAMPLING_RATIO, SwapOptions
from .types import SwapError, class_of, retype

# These only index the RoIs of the features and hand the features on, so one more dimension makes no difference.
ROI_HEADS = (StandardRoIHead, CascadeRoIHead, DynamicRoIHead, PISARoIHead, MaskScoringRoIHead)
# Why these RoI heads are not swapped.
REFUSED_ROI_HEADS = {
    'HybridTaskCascadeRoIHead': 'it adds semantic features to the RoI features and passes mask features on',
    'SCNetRoIHead': 'it adds semantic and global features to the RoI features',
    'SparseRoIHead': 'its heads multiply the RoI features with those of the proposals',
    'GridRoIHead': 'its grid head reads RoI features of its own kind',
    'PointRendRoIHead': 'its heads read single points of the finest level',
    'DoubleHeadRoIHead': 'its box head takes two RoI features',
    'MultiInstanceRoIHead': 'its box head predicts several boxes per proposal and refines them from its features',
    'TridentRoIHead': 'it works on one level of several branches',
    'GVRatioRoIHead': 'its box head predicts vertices too, and PANet has no such head',  # MMRotate's Gliding Vertex
}
BBOX_HEADS = {Shared2FCBBoxHead: PANetShared2FCBBoxHead, Shared4Conv1FCBBoxHead: PANetShared4Conv1FCBBoxHead}
PANET_HEADS = (*BBOX_HEADS.values(), FCFusionMaskHead)


# MMRotate's extractor of rotated RoIs. The package is no dependency, so the class is known by its name.
ROTATED_EXTRACTOR = 'RotatedSingleRoIExtractor'
LAYERS = {AdaptiveFeaturePooling: 'RoIAlign', RotatedAdaptiveFeaturePooling: 'RoIAlignRotated'}


def swap_roi_head(
    model: dict, path: Tuple[str, ...], scope: Optional[str], options: SwapOptions, notes: List[str]
) -> None:
    """Swap ``model.roi_head`` in place, completely or not at all.

    Args:
        model: The model in the config.
        path: Where it stands in the config.
        scope: The scope in which it is built.
        options: What was asked for.
        notes: The notes for the user, to which new ones are appended.

    Raises:
        SwapError: If the RoI head cannot be swapped. The message contains all reasons.
    """
    where = '.'.join(path)
    roi_head = model.get('roi_head')
    if not roi_head:
        raise SwapError(
            f'{where} ({type_name(model["type"])}) has no roi_head; without --roi-head its neck can be swapped'
        )
    if not isinstance(roi_head, dict):
        raise SwapError(f'{where}.roi_head is a list of {len(roi_head)} heads, and only a single one can be swapped')
    refusals = []
    roi_head_class = class_of(roi_head['type'], scope)
    name = type_name(roi_head['type'])
    if roi_head_class not in (*ROI_HEADS, PANetRoIHead):
        why = REFUSED_ROI_HEADS.get(name, "it is none of mmdet's RoI heads that are known to leave RoI features alone")
        refusals.append(f'type={name}: {why}')
    if roi_head.get('shared_head'):
        refusals.append(
            f'shared_head={type_name(roi_head["shared_head"]["type"])}: it needs one map per RoI, and PANet has one '
            'for each level'
        )
    if not refusals:
        branches = [_Branch('bbox', roi_head, scope, options)]
        if roi_head.get('mask_head') and roi_head_class is not MaskScoringRoIHead:
            branches.append(_Branch('mask', roi_head, scope, options))
        refusals = [refusal for branch in branches for refusal in branch.refusals()]
    of_masks = roi_head.get('mask_roi_extractor')
    if roi_head_class is MaskScoringRoIHead and (not of_masks or of_masks is roi_head.get('bbox_roi_extractor')):
        refusals.append('mask_roi_extractor: none of its own, so the mask IoU head would read the pooled levels')
    if refusals:
        other = '' if options.roi_head_only else ', the neck alone can (without --roi-head)'
        raise SwapError(f'{where}.roi_head cannot be swapped{other}: ' + '; '.join(refusals))

    for branch in branches:
        branch.swap(notes)
    if roi_head_class is StandardRoIHead:
        roi_head['type'] = retype(roi_head['type'], PANetRoIHead, scope)
    elif roi_head_class is MaskScoringRoIHead:
        notes.append(
            f'{where}.roi_head: the box branch is swapped. The mask branch stays, because the mask IoU head reads the '
            'pooled features of this branch'
        )


class _Branch:
    """The extractors and heads of the box branch or of the mask branch. A cascade has lists of them."""

    def __init__(self, branch: str, roi_head: dict, scope: Optional[str], options: SwapOptions) -> None:
        self.branch = branch
        self.scope = scope
        self.options = options
        self.heads = _as_list(roi_head.get(f'{branch}_head'))
        extractors = roi_head.get(f'{branch}_roi_extractor')
        # Without an extractor of its own the mask branch shares that of the box branch, which swaps it.
        of_boxes = roi_head.get('bbox_roi_extractor')
        self.shares_extractor = branch == 'mask' and (not extractors or extractors is of_boxes)
        self.extractors = _as_list(roi_head['bbox_roi_extractor'] if self.shares_extractor else extractors)

    def refusals(self) -> List[str]:
        """The reasons why the branch cannot be swapped; an empty list if it can."""
        refusals = [] if self.heads and self.extractors else [f'{self.branch}_head: none']
        if not self.shares_extractor:
            for extractor in self.extractors:
                refusals += self._refuse_extractor(extractor)
        for head in self.heads:
            refusals += self._refuse_levels(head)
            refusals += (self._refuse_bbox_head if self.branch == 'bbox' else self._refuse_mask_head)(head)
        return list(dict.fromkeys(refusals))  # the stages of a cascade have the same reasons

    def _refuse_extractor(self, extractor: dict) -> List[str]:
        key, name = f'{self.branch}_roi_extractor', type_name(extractor['type'])
        pooling = self._pooling_for(extractor)
        if class_of(extractor['type'], self.scope) in LAYERS:
            return [f'{key}.type={name}: it is swapped already']
        if pooling is None:
            return [f'{key}.type={name}: it fuses levels in its own way, and only SingleRoIExtractor can be swapped']
        layer = type_name(extractor['roi_layer']['type'])
        if layer != LAYERS[pooling]:
            return [f'{key}.roi_layer.type={layer}: adaptive feature pooling replaces only {LAYERS[pooling]}']
        return []

    def _pooling_for(self, extractor: dict) -> Optional[type]:
        extractor_class = class_of(extractor['type'], self.scope)
        if extractor_class in (SingleRoIExtractor, FastSingleRoIExtractor):
            return AdaptiveFeaturePooling
        is_rotated = extractor_class is not None and type_name(extractor['type']) == ROTATED_EXTRACTOR
        return RotatedAdaptiveFeaturePooling if is_rotated else None

    def _refuse_levels(self, head: dict) -> List[str]:
        name, num_levels = type_name(head['type']), head.get('num_levels', 4)
        if class_of(head['type'], self.scope) in PANET_HEADS and num_levels != 1:
            return [
                f'{self.branch}_head.num_levels={num_levels}: a {name} with 1 level can be swapped to all levels, and '
                'this one reads several already'
            ]
        return []

    def _refuse_bbox_head(self, head: dict) -> List[str]:
        name = type_name(head['type'])
        if self._panet_bbox_head(head) is None:
            return [f'bbox_head.type={name}: PANet has counterparts of Shared2FCBBoxHead and Shared4Conv1FCBBoxHead']
        if head.get('with_avg_pool'):
            return ['bbox_head.with_avg_pool=True: PANet heads need the grid of every RoI']
        return []

    def _panet_bbox_head(self, head: dict) -> Optional[type]:
        head_class = class_of(head['type'], self.scope)
        if head_class in BBOX_HEADS.values():
            return head_class
        if head_class is not ConvFCBBoxHead:
            return BBOX_HEADS.get(head_class)
        layers = tuple(
            head.get(f'num_{layer}', 0)
            for layer in ('shared_convs', 'shared_fcs', 'cls_convs', 'cls_fcs', 'reg_convs', 'reg_fcs')
        )
        return {(0, 2, 0, 0, 0, 0): PANetShared2FCBBoxHead, (4, 1, 0, 0, 0, 0): PANetShared4Conv1FCBBoxHead}.get(layers)

    def _refuse_mask_head(self, head: dict) -> List[str]:
        if class_of(head['type'], self.scope) not in (FCNMaskHead, FCFusionMaskHead):
            return [f'mask_head.type={type_name(head["type"])}: PANet has a counterpart of FCNMaskHead']
        if head.get('num_convs', 4) < 2:
            return [
                f'mask_head.num_convs={head["num_convs"]}: fully-connected fusion starts after the second convolution '
                'or a later one'
            ]
        return []

    def swap(self, notes: List[str]) -> None:
        """Swap the extractors and heads in place."""
        for extractor in self.extractors:
            use_new_names(extractor['roi_layer'])
        output_size = self.extractors[0]['roi_layer'].get('output_size')
        num_levels = len(self.extractors[0]['featmap_strides'])
        if not self.shares_extractor:
            for extractor in self.extractors:
                self._swap_extractor(extractor, notes)
        for head in self.heads:
            if self.branch == 'bbox':
                self._swap_bbox_head(head)
            else:
                self._swap_mask_head(head, output_size)
            if num_levels != 4 or 'num_levels' in head:
                head['num_levels'] = num_levels
            if self.options.grow:
                head['level_gate'] = True
            if self.options.level_fusion != 'max':
                head['level_fusion'] = self.options.level_fusion

    def _swap_extractor(self, extractor: dict, notes: List[str]) -> None:
        pooling = self._pooling_for(extractor)
        assert pooling is not None  # otherwise the extractor was refused
        extractor['type'] = retype(extractor['type'], pooling, self.scope)
        if self.options.grow:
            extractor['own_level_first'] = True
        else:
            extractor.pop('finest_scale', None)  # an RoI does not belong to a single level any more
        layer = extractor['roi_layer']
        if layer.get('sampling_ratio', 0) > 0:
            return
        if self.options.samples > 0:
            layer['sampling_ratio'] = ratio = self.options.samples
            note = (
                'RoIAlign derived the number of samples from the size of the RoI; now it has '
                f'sampling_ratio={ratio}{", as in the official code" if ratio == OFFICIAL_SAMPLING_RATIO else ""}'
            )
            if self.options.grow:
                note += '. The model starts with other outputs therefore; without --sampling-ratio they stay'
        elif pooling is RotatedAdaptiveFeaturePooling:
            note = (
                'RoIAlignRotated keeps sampling_ratio=0, and only the operator of mmcv computes this, once per level; '
                f'--sampling-ratio 2 is faster{" and changes the outputs" if self.options.grow else ""}'
            )
        else:
            return
        if note not in notes:
            notes.append(note)

    def _swap_bbox_head(self, head: dict) -> None:
        panet_head = self._panet_bbox_head(head)
        assert panet_head is not None  # otherwise the head was refused
        if panet_head is class_of(head['type'], self.scope):
            return
        head['type'] = retype(head['type'], panet_head, self.scope)
        for key in (
            'num_shared_convs',
            'num_shared_fcs',
            'num_cls_convs',
            'num_cls_fcs',
            'num_reg_convs',
            'num_reg_fcs',
        ):
            head.pop(key, None)
        if panet_head is PANetShared2FCBBoxHead and head.get('norm_cfg') is not None:
            # mmdet's head without convolutions ignores norm_cfg. Here it would be the norm of the fcs.
            head['norm_cfg'] = None

    def _swap_mask_head(self, head: dict, output_size: Any) -> None:
        head['type'] = retype(head['type'], FCFusionMaskHead, self.scope)
        if _pair(head.get('roi_feat_size', 14)) != _pair(output_size):
            head['roi_feat_size'] = output_size  # FCNMaskHead ignores it, fully-connected fusion does not
        if head.get('num_convs', 4) < 3 and 'fc_branch_start' not in head:
            head['fc_branch_start'] = head['num_convs']


def _as_list(value: Any) -> list:
    """A single config as a list; from a list of configs, each different object once."""
    values = value if isinstance(value, (list, tuple)) else [value] if value else []
    return list({id(value): value for value in values}.values())


def _pair(size: Any) -> Tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
