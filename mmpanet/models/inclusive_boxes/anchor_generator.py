# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Optional, Tuple

import torch
from torch import Tensor

from mmdet.models.task_modules.prior_generators import LegacyAnchorGenerator
from mmdet.registry import TASK_UTILS


@TASK_UTILS.register_module(name=['InclusiveAnchorGenerator', 'DetectronAnchorGenerator'])
class InclusiveAnchorGenerator(LegacyAnchorGenerator):
    """Anchors that are rounded before they are scaled, as in the authors' code.

    Source: ``lib/modeling/generate_anchors.py`` of Detectron.pytorch. It rounds the sides of an anchor to whole pixels
    at the size of the stride, and scales them afterwards. mmdet's ``LegacyAnchorGenerator`` scales first and then
    rounds the corners. With stride 16, scale 8 and ratio 0.5 the anchor is 184 x 96 pixels here, and 182 x 90 pixels
    with mmdet's class.

    The arguments are those of ``LegacyAnchorGenerator``. Set ``center_offset=0.5`` to center the anchors as the authors
    do.
    """

    def gen_single_level_base_anchors(
        self, base_size: float, scales: Tensor, ratios: Tensor, center: Optional[Tuple[float, float]] = None
    ) -> Tensor:
        """Make the anchors of one level, around its first pixel.

        Args:
            base_size (float): Side of the unscaled anchor in pixels, which is the stride of the level.
            scales (Tensor): Scales of the anchors, (S,).
            ratios (Tensor): Height divided by width, (R,).
            center (tuple[float, float], optional): x and y of the center. Defaults to None, which computes it from
                ``center_offset``.

        Returns:
            Tensor: x1, y1, x2, y2 in pixels, (R * S, 4).
        """
        if center is None:
            center = (self.center_offset * (base_size - 1),) * 2
        width = (base_size / ratios.sqrt()).round()
        sides = torch.stack([width, (width * ratios).round()], dim=-1)
        if self.scale_major:
            sides = sides[:, None] * scales[None, :, None]
        else:
            sides = sides[None] * scales[:, None, None]
        half = 0.5 * (sides.view(-1, 2) - 1)
        middle = half.new_tensor(center)
        return torch.cat([middle - half, middle + half], dim=-1)
