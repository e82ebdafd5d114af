# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple

from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptMultiConfig
from mmpanet.ops import multi_level_roi_align
from .layers import check_backend, uses_bag
from .layers.argument_checks import check_roi_extractor


@MODELS.register_module()
class FastSingleRoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor`` on the op of adaptive feature pooling.

    Each RoI is pooled from one level, chosen by FPN's rule, all of them in
    one call. A drop-in for any two-stage model, with or without PANet: same
    arguments, same output. Maps in channels-last memory and bfloat16 are
    pooled right, which mmcv's op does not do.

    Args:
        roi_layer (dict): As in mmdet, e.g.
            ``dict(type='RoIAlign', output_size=7, sampling_ratio=2)``. With
            mmdet's default of ``sampling_ratio=0`` mmcv's op is used.
        out_channels (int): C, the channels of every level.
        featmap_strides (list[int]): The strides of the L levels.
        finest_scale (int): A RoI goes one level up whenever its scale, the
            root of its area, doubles from twice this. Defaults to 56.
        backend (str): 'auto', 'roi_align' or 'embedding_bag', see
            :class:`AdaptiveFeaturePooling`. Defaults to 'auto'.
        init_cfg (dict or list[dict], optional): Initialization config.

    Raises:
        ValueError: If ``backend`` is unknown or cannot do ``roi_layer``.
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
        super().__init__(
            roi_layer=roi_layer,
            out_channels=out_channels,
            featmap_strides=featmap_strides,
            finest_scale=finest_scale,
            init_cfg=init_cfg,
        )
        check_backend(backend, self.roi_layers[0])
        self.backend = backend

    def forward(self, feats: Tuple[Tensor], rois: Tensor, roi_scale_factor: Optional[float] = None) -> Tensor:
        """Pool every RoI on the level that its size chooses.

        Args:
            feats (tuple[Tensor]): L maps (B, C, H_l, W_l).
            rois (Tensor): (N, 5), image index and x1, y1, x2, y2 in pixels
                of the input image.
            roi_scale_factor (float, optional): Scale RoIs about their
                centres once their levels are chosen. Defaults to None.

        Returns:
            Tensor: (N, C, h, w).
        """
        layer = self.roi_layers[0]
        if not uses_bag(self.backend, layer, feats[0]):
            # mmcv's op misreads maps that are not contiguous.
            feats = tuple(feat.contiguous() for feat in feats)
            return super().forward(feats, rois, roi_scale_factor)
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None and len(feats) > 1:
            # With a single level mmdet leaves the RoIs as they are.
            rois = self.roi_rescale(rois, roi_scale_factor)
        scales = [1 / stride for stride in self.featmap_strides[: len(feats)]]
        return multi_level_roi_align(
            feats, rois, layer.output_size, scales, layer.sampling_ratio, layer.aligned, levels
        ).squeeze(1)
