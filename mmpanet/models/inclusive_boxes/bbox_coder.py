# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, Optional, Sequence

import torch
from torch import Tensor

from mmdet.models.task_modules.coders import LegacyDeltaXYWHBBoxCoder
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor


@TASK_UTILS.register_module(name=['InclusiveBBoxCoder', 'DetectronBBoxCoder'])
class InclusiveBBoxCoder(LegacyDeltaXYWHBBoxCoder):
    """Box coder for inclusive boxes whose decoding is the exact inverse of its encoding.

    Source: ``bbox_transform`` in ``lib/utils/boxes.py`` of Detectron.pytorch. mmdet's ``LegacyDeltaXYWHBBoxCoder``
    encodes in the same way, but its decoded boxes are half a pixel larger on every side. A comment there says that
    models of mmdet 1.x gain from this, because nothing else in mmdet gives the last pixel back.

    Args:
        **kwargs: The arguments of ``LegacyDeltaXYWHBBoxCoder``.
    """

    def decode(
        self,
        bboxes: Tensor,
        pred_bboxes: Tensor,
        max_shape: Optional[Sequence[int]] = None,
        wh_ratio_clip: Optional[float] = 16 / 1000,
    ) -> Any:
        """Apply predicted deltas to boxes.

        Args:
            bboxes (Tensor): RoIs or anchors, (N, 4).
            pred_bboxes (Tensor): Deltas, (N, 4) or (N, 4 * num_classes).
            max_shape (Sequence[int], optional): H and W of the image, to which the boxes are clipped. Defaults to
                None, which does not clip.
            wh_ratio_clip (float, optional): The most that a side may shrink or grow, as a ratio. Defaults to 16 / 1000.

        Returns:
            Tensor | HorizontalBoxes: Boxes of the shape of ``pred_bboxes``; of a box type if the coder has
            ``use_box_type=True``.
        """
        decoded = get_box_tensor(super().decode(bboxes, pred_bboxes, None, wh_ratio_clip))
        first, last = decoded.view(-1, 4).split(2, dim=-1)
        first, last = first + 0.5, last - 0.5
        if max_shape is not None:
            edge = last.new_tensor((max_shape[1] - 1, max_shape[0] - 1))
            first, last = (torch.minimum(point.clamp(min=0), edge) for point in (first, last))
        decoded = torch.cat([first, last], dim=-1).view_as(pred_bboxes)
        return HorizontalBoxes(decoded) if self.use_box_type else decoded
