# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, Iterable, Optional, Tuple

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmpanet.utils.errors import ConfigError
from .adaptive_feature_pooling import AdaptiveFeaturePooling
from .bbox_heads import PANetBBoxHead
from .fc_fusion_mask_head import FCFusionMaskHead
from .layers.argument_checks import check_count


@MODELS.register_module()
class PANetRoIHead(StandardRoIHead):
    """Standard RoI head that checks whether PANet's parts go together.

    The box branch and the mask branch are independent of each other. A branch is either PANet's, with
    ``AdaptiveFeaturePooling`` and one of this package's heads, or it has mmdet's extractor, as in the rows of the
    paper's Table 3 without adaptive feature pooling. With mmdet's extractor the head is mmdet's, or one of this
    package's with ``num_levels=1``.

    Args:
        rois_per_chunk (int, optional): The number of RoIs that pooling and heads process at a time in inference. This
            bounds the memory and does not change the result. Defaults to None, which processes all RoIs at once.
        **kwargs: The arguments of mmdet's ``StandardRoIHead``.

    Raises:
        ConfigError: If the parts do not go together. The message names the config key.
    """

    def __init__(self, rois_per_chunk: Optional[int] = None, **kwargs: Any) -> None:
        if rois_per_chunk is not None:
            check_count('rois_per_chunk', rois_per_chunk, 'None or ')
        for key in ('bbox_head', 'bbox_roi_extractor'):
            if kwargs.get(key) is None:
                raise ConfigError(f'{key}=None must be a config: an RoI head cannot do without boxes')
        super().__init__(**kwargs)
        self.rois_per_chunk = rois_per_chunk
        heads = [getattr(self, f'{branch}_head', None) for branch in ('bbox', 'mask')]
        if self.with_shared_head and any(map(self._is_panet, heads)):
            raise ConfigError(
                f'shared_head={type(self.shared_head).__name__} needs one map per RoI, but the features of '
                "PANet's heads have one map per level and RoI: leave shared_head out"
            )
        if self.with_bbox:
            self._check_branch('bbox', self.bbox_roi_extractor, self.bbox_head)
        if self.with_mask:
            self._check_branch('mask', self.mask_roi_extractor, self.mask_head)

    @staticmethod
    def _is_panet(head: Optional[BaseModule]) -> bool:
        return isinstance(head, (PANetBBoxHead, FCFusionMaskHead))

    def _check_branch(self, branch: str, extractor: BaseModule, head: BaseModule) -> None:
        """Raise a ConfigError if the extractor and the head of a branch do not go together."""
        extractor_key = f'{branch}_roi_extractor'
        if branch == 'mask' and self.share_roi_extractor:
            extractor_key = 'bbox_roi_extractor (shared with the mask head)'
        head_key = f'{branch}_head'
        pools_levels = isinstance(extractor, AdaptiveFeaturePooling)
        is_panet = self._is_panet(head)
        takes_one_level = not is_panet or head.num_levels == 1
        if pools_levels and not is_panet or not pools_levels and not takes_one_level:
            panet_heads = (
                'PANetShared2FCBBoxHead or PANetShared4Conv1FCBBoxHead' if branch == 'bbox' else 'FCFusionMaskHead'
            )
            raise ConfigError(
                f'{extractor_key}.type={type(extractor).__name__} and {head_key}.type={type(head).__name__} do not go '
                f'together: AdaptiveFeaturePooling needs {panet_heads}, and other extractors need num_levels=1 in '
                'such a head'
            )
        if not is_panet:
            return
        if pools_levels and extractor.num_inputs != head.num_levels:
            raise ConfigError(
                f'{head_key}.num_levels={head.num_levels}, but {extractor_key}.featmap_strides='
                f'{extractor.featmap_strides} has {extractor.num_inputs}'
            )
        if self._has_level_gates(head) and not getattr(extractor, 'own_level_first', False):
            raise ConfigError(
                f'{head_key}.level_gate=True needs {extractor_key}.own_level_first=True: the gates close all levels '
                "but the first one, which must be the RoI's own level"
            )
        if extractor.out_channels != head.in_channels:
            raise ConfigError(
                f'{head_key}.in_channels={head.in_channels}, but {extractor_key}.out_channels={extractor.out_channels}'
            )
        output_size = tuple(extractor.roi_layers[0].output_size)
        if output_size != tuple(head.roi_feat_size):
            raise ConfigError(
                f'{head_key}.roi_feat_size={tuple(head.roi_feat_size)}, but '
                f'{extractor_key}.roi_layer.output_size={output_size}'
            )
        if branch == 'mask':
            self._check_mask_target()

    @staticmethod
    def _has_level_gates(head: BaseModule) -> bool:
        return any(getattr(module, 'level_gates', None) is not None for module in head.modules())

    def _check_mask_target(self) -> None:
        mask_size = (self.train_cfg or {}).get('mask_size')
        if mask_size is None:
            return
        mask_size = (mask_size, mask_size) if isinstance(mask_size, int) else tuple(mask_size)
        if mask_size != self.mask_head.mask_size:
            raise ConfigError(
                f'train_cfg.rcnn.mask_size={mask_size}, but mask_head predicts {self.mask_head.mask_size}: '
                f'roi_feat_size={tuple(self.mask_head.roi_feat_size)} times '
                f'upsample_cfg.scale_factor={self.mask_head.scale_factor}'
            )

    def _in_chunks(self, rois: Tensor) -> Tuple[Tensor, ...]:
        """Split the RoIs into chunks in inference, if ``rois_per_chunk`` is set."""
        if self.training or self.rois_per_chunk is None:
            return (rois,)
        return rois.split(self.rois_per_chunk)

    def _bbox_forward(self, x: Tuple[Tensor, ...], rois: Tensor) -> dict:
        """As in mmdet. With several chunks the result holds no ``bbox_feats``."""
        chunks = self._in_chunks(rois)
        if len(chunks) == 1:
            return super()._bbox_forward(x, rois)
        forward = super()._bbox_forward
        return _concatenate(('cls_score', 'bbox_pred'), (forward(x, chunk) for chunk in chunks))

    def _mask_forward(
        self,
        x: Tuple[Tensor, ...],
        rois: Optional[Tensor] = None,
        pos_inds: Optional[Tensor] = None,
        bbox_feats: Optional[Tensor] = None,
    ) -> dict:
        """As in mmdet. With several chunks the result holds no ``mask_feats``."""
        chunks = self._in_chunks(rois) if rois is not None else ()
        if len(chunks) < 2:
            return super()._mask_forward(x, rois, pos_inds, bbox_feats)
        forward = super()._mask_forward
        return _concatenate(('mask_preds',), (forward(x, chunk) for chunk in chunks))


def _concatenate(keys: Tuple[str, ...], results: Iterable[dict]) -> dict:
    """Concatenate the predictions of several chunks of RoIs. The features of a chunk are freed before the next one."""
    kept = [[result[key] for key in keys] for result in results]
    return {key: None if values[0] is None else torch.cat(values) for key, values in zip(keys, zip(*kept))}
