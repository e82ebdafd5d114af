# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrites the RoI head of a model: adaptive feature pooling, PANet's box heads, fully-connected fusion."""

from typing import List, Optional, Tuple

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
    FCFusionMaskHead,
    PANetRoIHead,
    PANetShared2FCBBoxHead,
    PANetShared4Conv1FCBBoxHead,
)
from .types import SwapError, class_of, name_of, retype

# These do nothing with RoI features but index RoIs and hand them on, so that one more axis does not disturb them.
ROI_HEADS = (StandardRoIHead, CascadeRoIHead, DynamicRoIHead, PISARoIHead, MaskScoringRoIHead)
# What the others do.
REFUSED_ROI_HEADS = {
    'HybridTaskCascadeRoIHead': 'it adds semantic features to the RoI features and passes mask features on',
    'SCNetRoIHead': 'it adds semantic and global features to the RoI features',
    'SparseRoIHead': 'its heads multiply the RoI features with those of the proposals',
    'GridRoIHead': 'its grid head reads RoI features of its own kind',
    'PointRendRoIHead': 'its heads read single points of the finest level',
    'DoubleHeadRoIHead': 'its box head takes two RoI features',
    'MultiInstanceRoIHead': 'its box head predicts several boxes a proposal and refines them from its features',
    'TridentRoIHead': 'it works on one level of several branches',
}
BBOX_HEADS = {Shared2FCBBoxHead: PANetShared2FCBBoxHead, Shared4Conv1FCBBoxHead: PANetShared4Conv1FCBBoxHead}
PANET_HEADS = (*BBOX_HEADS.values(), FCFusionMaskHead)


def swap_roi_head(
    model: dict, path: Tuple[str, ...], scope: Optional[str], sampling_ratio: int, notes: List[str]
) -> None:
    """Swap ``model.roi_head`` in place, whole or not at all.

    Raises:
        SwapError: With every reason why not.
    """
    where = '.'.join(path)
    roi_head = model.get('roi_head')
    if not roi_head:
        raise SwapError(
            f'{where} ({name_of(model["type"])}) has no roi_head; without --roi-head its neck can be swapped'
        )
    refusals = []
    roi_head_class = class_of(roi_head['type'], scope)
    name = name_of(roi_head['type'])
    if roi_head_class not in (*ROI_HEADS, PANetRoIHead):
        why = REFUSED_ROI_HEADS.get(name, "it is none of mmdet's RoI heads that are known to leave RoI features alone")
        refusals.append(f'type={name}: {why}')
    if roi_head.get('shared_head'):
        refusals.append(
            f'shared_head={name_of(roi_head["shared_head"]["type"])}: it works on one map a RoI, PANet has one a level'
        )
    if not refusals:
        branches = [_Branch('bbox', roi_head, scope, sampling_ratio)]
        if roi_head.get('mask_head') and roi_head_class is not MaskScoringRoIHead:
            branches.append(_Branch('mask', roi_head, scope, sampling_ratio))
        refusals = [refusal for branch in branches for refusal in branch.refusals()]
    if roi_head_class is MaskScoringRoIHead and not roi_head.get('mask_roi_extractor'):
        refusals.append('mask_roi_extractor: none, so the mask IoU head would read the pooled levels')
    if refusals:
        raise SwapError(
            f'{where}.roi_head cannot be swapped, the neck alone can (without --roi-head): ' + '; '.join(refusals)
        )

    for branch in branches:
        branch.swap(notes)
    if roi_head_class is StandardRoIHead:
        roi_head['type'] = retype(roi_head['type'], PANetRoIHead)
    elif roi_head_class is MaskScoringRoIHead:
        notes.append(
            f'{where}.roi_head: the box branch is swapped; the mask branch stays, because the mask IoU head '
            'reads its pooled features itself'
        )


class _Branch:
    """The extractors and heads of boxes or of masks; a cascade has lists of them."""

    def __init__(self, branch: str, roi_head: dict, scope: Optional[str], sampling_ratio: int) -> None:
        self.branch = branch
        self.scope = scope
        self.sampling_ratio = sampling_ratio
        self.heads = _as_list(roi_head.get(f'{branch}_head'))
        extractors = roi_head.get(f'{branch}_roi_extractor')
        # Without one the mask branch shares that of the boxes, which that branch swaps.
        self.shares_extractor = branch == 'mask' and not extractors
        self.extractors = _as_list(roi_head['bbox_roi_extractor'] if self.shares_extractor else extractors)

    def refusals(self) -> List[str]:
        refusals = [] if self.heads and self.extractors else [f'{self.branch}_head: none']
        if not self.shares_extractor:
            for extractor in self.extractors:
                refusals += self._refuse_extractor(extractor)
        for head in self.heads:
            refusals += self._refuse_levels(head)
            refusals += (self._refuse_bbox_head if self.branch == 'bbox' else self._refuse_mask_head)(head)
        return list(dict.fromkeys(refusals))  # a cascade's stages say the same

    def _refuse_extractor(self, extractor: dict) -> List[str]:
        key, name = f'{self.branch}_roi_extractor', name_of(extractor['type'])
        extractor_class = class_of(extractor['type'], self.scope)
        layer = name_of(extractor['roi_layer']['type'])
        if extractor_class is AdaptiveFeaturePooling:
            return [f'{key}.type={name}: it is swapped already']
        if extractor_class is not SingleRoIExtractor:
            return [f'{key}.type={name}: it fuses levels its own way, and only SingleRoIExtractor can be swapped']
        if layer != 'RoIAlign':
            return [f'{key}.roi_layer.type={layer}: adaptive feature pooling replaces RoIAlign alone']
        return []

    def _refuse_levels(self, head: dict) -> List[str]:
        name, num_levels = name_of(head['type']), head.get('num_levels', 4)
        if class_of(head['type'], self.scope) in PANET_HEADS and num_levels != 1:
            return [
                f'{self.branch}_head.num_levels={num_levels}: a {name} of 1 level can be swapped to all of them, '
                'and others read several already'
            ]
        return []

    def _refuse_bbox_head(self, head: dict) -> List[str]:
        name = name_of(head['type'])
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
            return [f'mask_head.type={name_of(head["type"])}: PANet has a counterpart of FCNMaskHead']
        if head.get('num_convs', 4) < 2:
            return [
                f'mask_head.num_convs={head["num_convs"]}: fully-connected fusion leaves after the second conv '
                'or a later one'
            ]
        return []

    def swap(self, notes: List[str]) -> None:
        output_size = self.extractors[0]['roi_layer']['output_size']
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

    def _swap_extractor(self, extractor: dict, notes: List[str]) -> None:
        extractor['type'] = retype(extractor['type'], AdaptiveFeaturePooling)
        extractor.pop('finest_scale', None)  # no RoI belongs to one level any more
        layer = extractor['roi_layer']
        if layer.get('sampling_ratio', 0) <= 0 and self.sampling_ratio > 0:
            layer['sampling_ratio'] = self.sampling_ratio
            note = (
                f'RoIAlign left the number of samples to the size of the RoI; it is sampling_ratio='
                f'{self.sampling_ratio} now{", as in the official code" if self.sampling_ratio == 2 else ""}'
            )
            if note not in notes:
                notes.append(note)

    def _swap_bbox_head(self, head: dict) -> None:
        panet_head = self._panet_bbox_head(head)
        assert panet_head is not None  # else it was refused
        if panet_head is class_of(head['type'], self.scope):
            return
        head['type'] = retype(head['type'], panet_head)
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
            # A head without convs makes no use of it in mmdet; here it would be the norm of the fcs.
            head['norm_cfg'] = None

    def _swap_mask_head(self, head: dict, output_size) -> None:
        head['type'] = retype(head['type'], FCFusionMaskHead)
        if _pair(head.get('roi_feat_size', 14)) != _pair(output_size):
            head['roi_feat_size'] = output_size  # FCNMaskHead has no use for it, fully-connected fusion has
        if head.get('num_convs', 4) < 3 and 'fc_branch_start' not in head:
            head['fc_branch_start'] = head['num_convs']


def _as_list(value) -> list:
    """A single config as a list of one; a config that stands in a list several times, once."""
    values = value if isinstance(value, (list, tuple)) else [value] if value else []
    return list({id(value): value for value in values}.values())


def _pair(size) -> Tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
