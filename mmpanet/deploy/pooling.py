# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""RoI extractors as ONNX's ``RoiAlign``."""

from typing import Sequence, Tuple, Union

import torch
import torch.nn as nn
from torch import Tensor

from mmpanet.models import AdaptiveFeaturePooling
from .operators import ONNXRoIAlign


class Pooling(nn.Module):
    """A RoI extractor with one ``RoiAlign`` per level.

    ``AdaptiveFeaturePooling`` pools each RoI from all levels. ``SingleRoIExtractor`` pools each RoI from one level: the
    RoIs of each level are picked, pooled and put back in their order.

    Args:
        extractor (nn.Module): One of the two, with layers of type RoIAlign that take the average.
    """

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.pools_all_levels = isinstance(extractor, AdaptiveFeaturePooling)

    def forward(self, feats: Sequence[Tensor], rois: Tensor) -> Union[Tensor, Tuple[Tensor, ...]]:
        """Pool.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse; those behind the pooled ones are ignored.
            rois (Tensor): (N, 5), image index and x1, y1, x2, y2 in pixels.

        Returns:
            Tensor | tuple[Tensor, ...]: (N, C, h, w) if each RoI is pooled from one level, else L of them, which the
            heads take as they take one tensor (N, L, C, h, w). A graph would copy all of it to put it together.
        """
        feats = feats[: self.extractor.num_inputs]
        if self.pools_all_levels:
            grids = tuple(self._pool(i, feat, rois) for i, feat in enumerate(feats))
            if not self.extractor.own_level_first:
                return grids
            pooled = torch.stack(grids, dim=1)
            order = self.extractor.level_order(rois)
            first = torch.arange(rois.shape[0], device=rois.device)[:, None] * len(feats)
            return pooled.flatten(0, 1)[(first + order).flatten()].view_as(pooled)
        if len(feats) == 1:
            return self._pool(0, feats[0], rois)
        levels = self.extractor.map_roi_levels(rois, len(feats))
        members = [(levels == i).nonzero()[:, 0] for i in range(len(feats))]
        pooled = torch.cat([self._pool(i, feat, rois[members[i]]) for i, feat in enumerate(feats)])
        order = torch.cat(members)
        place = torch.zeros_like(order).scatter(0, order, torch.arange(order.shape[0], device=order.device))
        return pooled[place]

    def _pool(self, level: int, feat: Tensor, rois: Tensor) -> Tensor:
        layer = self.extractor.roi_layers[level]
        return ONNXRoIAlign.apply(
            feat, rois, *layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
