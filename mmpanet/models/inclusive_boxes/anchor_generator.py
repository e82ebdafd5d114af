# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Optional, Tuple

import torch
from torch import Tensor

from mmdet.models.task_modules.prior_generators import LegacyAnchorGenerator
from mmdet.registry import TASK_UTILS


@TASK_UTILS.register_module()
class DetectronAnchorGenerator(LegacyAnchorGenerator):
    """The anchors that the authors' models were trained with.

    ``lib/modeling/generate_anchors.py`` of the code base under the official
    one. Sides are rounded to whole pixels at the stride's size and scaled
    then; mmdet's ``LegacyAnchorGenerator`` scales first and rounds the
    corners. With stride 16, scale 8 and ratio 0.5 that is 184 x 96 here and
    182 x 90 there.

    It takes the arguments of ``LegacyAnchorGenerator``;
    ``center_offset=0.5`` puts the anchors where the authors have them.
    """

    def gen_single_level_base_anchors(
        self, base_size: float, scales: Tensor, ratios: Tensor, center: Optional[Tuple[float, float]] = None
    ) -> Tensor:
        """Anchors of one level about the first pixel.

        Args:
            base_size (float): The side of the unscaled anchor: the stride.
            scales (Tensor): (S,), scales of the anchors.
            ratios (Tensor): (R,), height over width.
            center (tuple[float, float], optional): x and y of the centre.
                Defaults to None, ``center_offset`` of the base anchor.

        Returns:
            Tensor: (R * S, 4), x1, y1, x2, y2 in pixels.
        """
        if center is None:
            center = (self.center_offset * (base_size - 1),) * 2
        width = (base_size / ratios.sqrt()).round()
        sides = torch.stack([width, (width * ratios).round()], dim=-1)
        if self.scale_major:
            sides = sides[:, None] * scales[None, :, None]
        else:
            sides = sides[None] * scales[:, None, None]
        reach = 0.5 * (sides.view(-1, 2) - 1)
        center = reach.new_tensor(center)
        return torch.cat([center - reach, center + reach], dim=-1)
