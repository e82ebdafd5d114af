# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple, Type

import torch
import torch.nn as nn
from mmcv.ops import RoIAlign
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptMultiConfig
from mmpanet.ops import fpn_levels, multi_level_roi_align
from mmpanet.utils.errors import ConfigError
from .layers import check_backend, for_mmcv, uses_embedding_bag
from .layers.argument_checks import check_count, check_roi_extractor


@MODELS.register_module()
class AdaptiveFeaturePooling(BaseRoIExtractor):
    """Adaptive feature pooling: each RoI is pooled from all levels.

    PANet, Section 3.2; ``roi_feature_transform`` in the official ``lib/modeling/model_builder.py``. This module pools
    and does not fuse. The heads apply their first layer to each level and fuse the results (``level_fusion``), or fuse
    the grids before this layer (``fuse_before_first_layer``, Table 4).

    The first dimension of the output is the RoI. RoI heads that only index the RoIs of the features, and hand the
    features on to their heads (Standard, Cascade, Dynamic and PISA in mmdet), therefore work without a change.

    Args:
        roi_layer (dict): Config of the pooling layer, as in mmdet's extractors, for example
            ``dict(type='RoIAlign', output_size=7, sampling_ratio=2)``. The official code uses ``sampling_ratio=2`` and
            ``aligned=False``.
        out_channels (int): C, the number of channels of every level.
        featmap_strides (list[int]): The strides of the L levels, in pixels of the input image.
        backend (str): 'roi_align' calls ``roi_layer`` for each level. 'embedding_bag' pools all levels in one call of
            :func:`mmpanet.ops.multi_level_roi_align`; it needs an average RoIAlign. If ``roi_layer`` allows it, 'auto'
            uses 'embedding_bag' on all devices but CUDA, and there for bfloat16 with ``sampling_ratio >= 1``, because
            mmcv's operator does not support bfloat16. In a trace with ``sampling_ratio=0`` it uses 'roi_align'.
            Defaults to 'auto'.
        own_level_first (bool): Order the levels of each RoI: first its own level, the one that FPN would pool it from,
            then the other levels from fine to coarse. A head with ``level_gate=True`` needs this order. It is an
            extension of ours: the paper and the official code have all levels from fine to coarse. Defaults to False.
        finest_scale (int): Only for ``own_level_first``, as in mmdet's ``SingleRoIExtractor``: a RoI belongs to the
            finest level if the square root of its area, in pixels, is below twice this number; each doubling is one
            level more. Defaults to 56.
        init_cfg (dict or list[dict], optional): Initialization config. Defaults to None.

    Raises:
        ConfigError: If an argument has a value that is not allowed.

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

    roi_length = 5  # image index, and x1, y1, x2, y2
    roi_layer_type: Type[nn.Module] = RoIAlign  # the layer that can be computed on all levels at once

    def __init__(
        self,
        roi_layer: ConfigType,
        out_channels: int,
        featmap_strides: List[int],
        backend: str = 'auto',
        own_level_first: bool = False,
        finest_scale: int = 56,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        check_roi_extractor(roi_layer, out_channels, featmap_strides)
        super().__init__(
            roi_layer=roi_layer, out_channels=out_channels, featmap_strides=featmap_strides, init_cfg=init_cfg
        )
        check_backend(backend, self.roi_layers[0], self.roi_layer_type)
        check_count('finest_scale', finest_scale)
        self.backend = backend
        self.own_level_first = own_level_first
        self.finest_scale = finest_scale

    @property
    def output_size(self) -> Tuple[int, int]:
        """tuple[int, int]: h and w of the pooled grids."""
        return self.roi_layers[0].output_size

    def forward(self, feats: Tuple[Tensor, ...], rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
        """Pool each RoI from all levels.

        Args:
            feats (tuple[Tensor]): N2 to N5: L maps (B, C, H_l, W_l).
            rois (Tensor): (N, 5): image index, and x1, y1, x2, y2 in pixels of the input image.
            roi_scale_factor (float, optional): Scale the RoIs about their centers by this factor first. Defaults to
                None.

        Returns:
            Tensor: (N, L, C, h, w), with the levels from fine to coarse, or in the order of :meth:`level_order`. The
            memory layout depends on the backend.

        Raises:
            ConfigError: If the number of maps or their channels are not those of ``featmap_strides`` and
                ``out_channels``.
            ValueError: If ``rois`` has another shape.
        """
        if len(feats) != self.num_inputs:
            raise ConfigError(
                f'featmap_strides={self.featmap_strides} names {self.num_inputs} levels, but {len(feats)} feature maps '
                'came in'
            )
        channels = [feat.size(1) for feat in feats]
        if channels != [self.out_channels] * len(feats):
            raise ConfigError(f'out_channels={self.out_channels}, but the feature maps have {channels} channels')
        if rois.dim() != 2 or rois.size(1) != self.roi_length:
            raise ValueError(f'rois must be of shape (N, {self.roi_length}), not {tuple(rois.shape)}')
        order = self.level_order(rois) if self.own_level_first else None
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        if uses_embedding_bag(self.backend, self.roi_layers[0], feats[0], self.roi_layer_type):
            return self._pool_at_once(feats, rois, order)
        if not len(rois):  # mmcv's operator fails on a GPU then
            nothing = torch.cat([feat[:0].flatten() for feat in feats])  # with gradients of zero
            return nothing.view(0, len(feats), self.out_channels, *self.output_size)
        inputs, rois = for_mmcv(feats, rois)
        pooled = torch.stack([layer(feat, rois) for layer, feat in zip(self.roi_layers, inputs)], dim=1).to(feats[0])
        return pooled if order is None else pooled[torch.arange(len(rois), device=rois.device)[:, None], order]

    def _pool_at_once(self, feats: Tuple[Tensor, ...], rois: Tensor, order: Optional[Tensor]) -> Tensor:
        layer = self.roi_layers[0]
        scales = [1 / stride for stride in self.featmap_strides]
        return multi_level_roi_align(feats, rois, self.output_size, scales, layer.sampling_ratio, layer.aligned, order)

    def level_order(self, rois: Tensor) -> Tensor:
        """Order the levels of each RoI: its own level by FPN's rule, then the others from fine to coarse.

        FPN, Equation 1. The own level is chosen before a RoI is scaled, as in mmdet's ``SingleRoIExtractor``.

        Args:
            rois (Tensor): (N, 5): image index, and x1, y1, x2, y2 in pixels of the input image.

        Returns:
            Tensor: (N, L), indices of the levels.
        """
        levels = list(range(self.num_inputs))
        orders = [[own] + [level for level in levels if level != own] for own in levels]
        return torch.tensor(orders, device=rois.device)[fpn_levels(rois, self.num_inputs, self.finest_scale)]
