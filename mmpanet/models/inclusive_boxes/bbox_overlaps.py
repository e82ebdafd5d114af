# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import torch
from torch import Tensor

from mmdet.models.task_modules import BboxOverlaps2D
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor


@TASK_UTILS.register_module(name=['InclusiveBBoxOverlaps2D', 'DetectronOverlaps2D'])
class InclusiveBBoxOverlaps2D(BboxOverlaps2D):
    """IoU of inclusive boxes: mmdet's IoU, after each box is extended to where its last pixel ends."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = 'iou', is_aligned: bool = False) -> Tensor:
        """Compute the overlaps.

        Args:
            bboxes1 (Tensor): x1, y1, x2, y2, (M, 4).
            bboxes2 (Tensor): x1, y1, x2, y2, (N, 4).
            mode (str): 'iou', 'iof' or 'giou'. Defaults to 'iou'.
            is_aligned (bool): Compare each box of ``bboxes1`` only with the box of the same index in ``bboxes2``.
                Defaults to False.

        Returns:
            Tensor: (M, N), or (M,) if ``is_aligned``.
        """
        return super().__call__(_to_exclusive(bboxes1), _to_exclusive(bboxes2), mode, is_aligned)


def _to_exclusive(bboxes: Tensor) -> Tensor:
    """Move x2 and y2 from the last pixel of a box to where the box ends; a score in column 5 is dropped."""
    bboxes = get_box_tensor(bboxes)[..., :4]
    return torch.cat([bboxes[..., :2], bboxes[..., 2:] + 1], dim=-1)
