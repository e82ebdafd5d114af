# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple

from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptMultiConfig
from mmpanet.ops import fpn_levels, multi_level_roi_align
from .layers import check_backend, for_mmcv, uses_embedding_bag
from .layers.argument_checks import check_count, check_roi_extractor


@MODELS.register_module()
class FastSingleRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor``, faster on a CPU, with the same results up to rounding.

    Each RoI is pooled from one level, which FPN's rule chooses from its size. On all devices but CUDA all RoIs are
    pooled in one call of :func:`mmpanet.ops.multi_level_roi_align`, with a fixed number of samples or with mmdet's
    default ``sampling_ratio=0``. On CUDA in most cases, and for a ``roi_layer`` that is no average RoIAlign, it calls
    mmcv's operator. In float32 it is then as fast as mmdet's class. Maps in half precision are pooled in float32, which
    takes a copy of them.

    The arguments and the output are those of mmdet's class, so it can replace that class in any two-stage model, with
    or without PANet. It is also correct for maps in channels-last memory, which mmcv's operator misreads, and in half
    precision, where mmdet rounds the coordinates too.

    Args:
        roi_layer (dict): Config of the pooling layer, as in mmdet, for example
            ``dict(type='RoIAlign', output_size=7, sampling_ratio=2)``.
        out_channels (int): C, the number of channels of every level.
        featmap_strides (list[int]): The strides of the L levels, in pixels of the input image.
        finest_scale (int): The scale of an RoI is the square root of its area. RoIs with a scale below twice
            ``finest_scale`` are pooled from the finest level, and each doubling of the scale moves to the next coarser
            level. Defaults to 56.
        backend (str): 'auto', 'roi_align' or 'embedding_bag', see :class:`AdaptiveFeaturePooling`. Defaults to 'auto'.
        init_cfg (dict or list[dict], optional): Initialization config. Defaults to None.

    Raises:
        ConfigError: If an argument has a value that is not allowed, or if ``backend`` cannot compute ``roi_layer``.
    """

    def __init__(
        self,
        roi_layer: ConfigType,
        out_channels: int,
        featmap_strides: List[int],
        finest_scale: int = 56,
        backend: str = 'auto',
        init_cfg: OptMultiConfig = None,
    ) -> None:
        check_roi_extractor(roi_layer, out_channels, featmap_strides)
        check_count('finest_scale', finest_scale)
        super().__init__(
            roi_layer=roi_layer,
            out_channels=out_channels,
            featmap_strides=featmap_strides,
            finest_scale=finest_scale,
            init_cfg=init_cfg,
        )
        check_backend(backend, self.roi_layers[0])
        self.backend = backend

    def map_roi_levels(self, rois: Tensor, num_levels: int) -> Tensor:
        """FPN's rule, see :func:`mmpanet.ops.fpn_levels`."""
        return fpn_levels(rois, num_levels, self.finest_scale)

    def forward(self, feats: Tuple[Tensor, ...], rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
        """Pool each RoI from the level that its size chooses.

        Args:
            feats (tuple[Tensor]): L maps (B, C, H_l, W_l).
            rois (Tensor): (N, 5): image index, and x1, y1, x2, y2 in pixels of the input image.
            roi_scale_factor (float, optional): Scale the RoIs about their centers by this factor, after their levels
                are chosen. Defaults to None.

        Returns:
            Tensor: (N, C, h, w).
        """
        layer = self.roi_layers[0]
        if not uses_embedding_bag(self.backend, layer, feats[0]):
            return super().forward(*for_mmcv(feats, rois), roi_scale_factor).to(feats[0])
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None and len(feats) > 1:
            # With a single level mmdet does not scale the RoIs.
            rois = self.roi_rescale(rois, roi_scale_factor)
        scales = [1 / stride for stride in self.featmap_strides[: len(feats)]]
        return multi_level_roi_align(
            feats, rois, layer.output_size, scales, layer.sampling_ratio, layer.aligned, levels
        ).squeeze(1)
