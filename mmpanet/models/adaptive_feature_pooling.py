# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptMultiConfig
from mmpanet.ops import multi_level_roi_align
from .layers import check_backend, uses_bag
from .layers.argument_checks import check_roi_extractor


@MODELS.register_module()
class AdaptiveFeaturePooling(BaseRoIExtractor):
    """Adaptive feature pooling: every RoI is pooled on every level.

    PANet, Section 3.2; ``roi_feature_transform`` in the official
    ``lib/modeling/model_builder.py``. What is pooled is not fused here: the
    heads apply their first layer to each level and fuse after it, or before
    it (Table 4), see ``level_fusion`` there.

    RoIs come first in the output, so a RoI head that treats features as
    opaque and only indexes RoIs (Standard, Cascade, Dynamic, PISA) works
    with it unchanged.

    Args:
        roi_layer (dict): As in mmdet's extractors, e.g.
            ``dict(type='RoIAlign', output_size=7, sampling_ratio=2)``. The
            official code has ``sampling_ratio=2, aligned=False``.
        out_channels (int): C, the channels of every level.
        featmap_strides (list[int]): The strides of the L levels.
        backend (str): 'roi_align' calls ``roi_layer`` once a level.
            'embedding_bag' pools all levels in one call, see
            :func:`~mmpanet.ops.multi_level_roi_align`; it needs an
            average RoIAlign with ``sampling_ratio >= 1``. 'auto' takes
            'embedding_bag' on the CPU, and in bfloat16, which mmcv's op does
            not know, wherever ``roi_layer`` allows it. Defaults to 'auto'.
        init_cfg (dict or list[dict], optional): Initialization config.

    Raises:
        ValueError: If an argument has a value that it does not take.

    Examples:
        >>> import torch
        >>> from mmpanet.models import AdaptiveFeaturePooling
        >>> pooling = AdaptiveFeaturePooling(
        ...     roi_layer=dict(
        ...         type='RoIAlign', output_size=7, sampling_ratio=2),
        ...     out_channels=256,
        ...     featmap_strides=[4, 8, 16, 32])
        >>> feats = [torch.rand(1, 256, 64 >> i, 64 >> i) for i in range(4)]
        >>> rois = torch.tensor([[0, 10., 20., 90., 60.]])
        >>> pooling(feats, rois).shape
        torch.Size([1, 4, 256, 7, 7])
    """

    def __init__(
        self,
        roi_layer: ConfigType,
        out_channels: int,
        featmap_strides: List[int],
        backend: str = 'auto',
        init_cfg: OptMultiConfig = None,
    ) -> None:
        check_roi_extractor(roi_layer, out_channels, featmap_strides)
        super().__init__(
            roi_layer=roi_layer, out_channels=out_channels, featmap_strides=featmap_strides, init_cfg=init_cfg
        )
        check_backend(backend, self.roi_layers[0])
        self.backend = backend

    @property
    def output_size(self) -> Tuple[int, int]:
        """tuple[int, int]: h and w of the pooled grids."""
        return self.roi_layers[0].output_size

    def forward(self, feats: Tuple[Tensor], rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
        """Pool every RoI on every level.

        Args:
            feats (tuple[Tensor]): N2 to N5: L maps (B, C, H_l, W_l).
            rois (Tensor): (N, 5), image index and x1, y1, x2, y2 in pixels
                of the input image.
            roi_scale_factor (float, optional): Scale RoIs about their
                centres first. Defaults to None.

        Returns:
            Tensor: (N, L, C, h, w). Its memory layout depends on the
            backend.

        Raises:
            ValueError: If the maps are not as ``featmap_strides`` and
                ``out_channels`` say, or ``rois`` not of that shape.
        """
        if len(feats) != self.num_inputs:
            raise ValueError(
                f'featmap_strides={self.featmap_strides} names '
                f'{self.num_inputs} levels, but {len(feats)} feature maps '
                'came in'
            )
        channels = [feat.size(1) for feat in feats]
        if channels != [self.out_channels] * len(feats):
            raise ValueError(f'out_channels={self.out_channels}, but the feature maps have {channels} channels')
        if rois.dim() != 2 or rois.size(1) != 5:
            raise ValueError(f'rois must be of shape (N, 5), not {tuple(rois.shape)}')
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        layer = self.roi_layers[0]
        if uses_bag(self.backend, layer, feats[0]):
            return multi_level_roi_align(
                feats,
                rois,
                self.output_size,
                [1 / stride for stride in self.featmap_strides],
                layer.sampling_ratio,
                layer.aligned,
            )
        return torch.stack(
            [
                # mmcv's op misreads maps that are not contiguous.
                layer(feat.contiguous(), rois.to(feat))
                for layer, feat in zip(self.roi_layers, feats)
            ],
            dim=1,
        )
