# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A detector's networks as modules of tensors alone, fit to be traced."""

from typing import Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor


class DenseGraph(nn.Module):
    """Backbone, neck and RPN head.

    Args:
        model (nn.Module): A two-stage detector of mmdet.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.backbone, self.rpn_head = model.backbone, model.rpn_head
        self.neck = model.neck if model.with_neck else nn.Identity()

    def forward(self, image: Tensor) -> Tuple[Tensor, ...]:
        """Run what needs the image.

        Args:
            image (Tensor): Normalised and padded, (1, 3, H, W).

        Returns:
            tuple[Tensor]: The maps of the neck, (1, C, H_l, W_l); then the
            RPN's scores after the sigmoid, (1, A, H_l, W_l); then its
            deltas, (1, 4A, H_l, W_l); fine to coarse each.
        """
        feats = self.neck(self.backbone(image))
        scores, deltas = self.rpn_head(feats)
        return (*feats, *(score.sigmoid() for score in scores), *deltas)


class BoxGraph(nn.Module):
    """Pooling and box head.

    Args:
        roi_head (nn.Module): ``PANetRoIHead`` or mmdet's ``StandardRoIHead``.
    """

    def __init__(self, roi_head: nn.Module) -> None:
        super().__init__()
        self.pooling = Pooling(roi_head.bbox_roi_extractor)
        self.head = roi_head.bbox_head

    def forward(self, rois: Tensor, *feats: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify and refine RoIs.

        Args:
            rois (Tensor): (N, 5), image index and x1, y1, x2, y2 in pixels.
            feats (Tensor): The maps that are pooled, (1, C, H_l, W_l).

        Returns:
            tuple[Tensor, Tensor]: Scores after the softmax,
            (N, num_classes + 1), and deltas (N, 4 * num_classes) or (N, 4).
        """
        scores, deltas = self.head(self.pooling(rois, feats))
        return scores.softmax(-1), deltas


class MaskGraph(nn.Module):
    """Pooling and mask head.

    Args:
        roi_head (nn.Module): As for :class:`BoxGraph`.
    """

    def __init__(self, roi_head: nn.Module) -> None:
        super().__init__()
        self.pooling = Pooling(roi_head.mask_roi_extractor)
        self.head = roi_head.mask_head

    def forward(self, rois: Tensor, *feats: Tensor) -> Tensor:
        """Predict masks.

        Args:
            rois (Tensor): (N, 5), as for :class:`BoxGraph`.
            feats (Tensor): The maps that are pooled, (1, C, H_l, W_l).

        Returns:
            Tensor: Masks after the sigmoid, (N, num_classes, h, w).
        """
        return self.head(self.pooling(rois, feats)).sigmoid()


class Pooling(nn.Module):
    """A RoI extractor as one ONNX ``RoiAlign`` a level.

    ``AdaptiveFeaturePooling`` gives (N, L, C, h, w), mmdet's
    ``SingleRoIExtractor`` (N, C, h, w): there all levels are pooled too, and
    each RoI's own is gathered.

    Args:
        extractor (nn.Module): One of the two, with layers of type RoIAlign
            that take the average.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.takes_one_level = isinstance(extractor, SingleRoIExtractor)

    def forward(self, rois: Tensor, feats: Tuple[Tensor]) -> Tensor:
        pooled = torch.stack(
            [
                ONNXRoIAlign.apply(
                    feat, rois, *layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
                )
                for layer, feat in zip(self.extractor.roi_layers, feats)
            ],
            dim=1,
        )
        if not self.takes_one_level:
            return pooled
        level = self.extractor.map_roi_levels(rois, len(feats))
        index = level[:, None, None, None, None]
        return pooled.gather(1, index.expand(-1, 1, *pooled.shape[2:]))[:, 0]


class ONNXRoIAlign(torch.autograd.Function):
    """mmcv's RoIAlign when run, the standard operator when exported.

    mmcv's own symbolic shifts the RoIs by half a pixel itself and then makes
    a node that, from opset 16 on, does so by default once more.
    """

    @staticmethod
    def forward(
        ctx, feat: Tensor, rois: Tensor, height: int, width: int, scale: float, sampling_ratio: int, aligned: bool
    ) -> Tensor:
        from mmcv.ops import roi_align

        return roi_align(feat.contiguous(), rois, (height, width), scale, sampling_ratio, 'avg', aligned)

    @staticmethod
    def symbolic(g, feat, rois, height, width, scale, sampling_ratio, aligned):

        def columns(*indices):
            chosen = g.op('Constant', value_t=torch.tensor(indices))
            return g.op('Gather', rois, chosen, axis_i=1)

        axis = g.op('Constant', value_t=torch.tensor([1]))
        image = g.op('Cast', g.op('Squeeze', columns(0), axis), to_i=7)  # int64
        mode = 'half_pixel' if aligned else 'output_half_pixel'
        return g.op(
            'RoiAlign',
            feat,
            columns(1, 2, 3, 4),
            image,
            coordinate_transformation_mode_s=mode,
            mode_s='avg',
            output_height_i=height,
            output_width_i=width,
            sampling_ratio_i=sampling_ratio,
            spatial_scale_f=scale,
        )
