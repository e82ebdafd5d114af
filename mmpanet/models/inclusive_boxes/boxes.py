# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The boxes that the authors' models were trained with.

``lib/utils/boxes.py`` of the code base under the official one: x2 and y2 are
the last pixel of a box, which is x2 - x1 + 1 wide; mmdet's are where a box
ends. Anchors, box coders, RoIAlign, IoU and NMS of the official configs work
on such boxes. The parts here stand where boxes come in, are coded and
compared, and go out.
"""

from typing import Optional, Sequence

import torch
from mmcv.transforms import BaseTransform
from torch import Tensor

from mmdet.models.task_modules import BboxOverlaps2D
from mmdet.models.task_modules.coders import LegacyDeltaXYWHBBoxCoder
from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures import SampleList
from mmdet.structures.bbox import HorizontalBoxes, get_box_tensor
from mmdet.utils import InstanceList
from mmpanet.models.panet_roi_head import PANetRoIHead


@TRANSFORMS.register_module()
class ToDetectronBoxes(BaseTransform):
    """Ground truth: x2 and y2 from where a box ends to its last pixel.

    ``xywh_to_xyxy`` there. It stands between the flip, which in mmdet takes
    boxes that end, and the resize: a pixel is one of the original image.
    """

    def transform(self, results: dict) -> dict:
        """Change ``gt_bboxes`` in place.

        Args:
            results (dict): Of mmdet's ``LoadAnnotations``.

        Returns:
            dict: The same.
        """
        boxes = get_box_tensor(results['gt_bboxes'])
        boxes[:, 2:] = torch.maximum(boxes[:, 2:] - 1, boxes[:, :2])
        return results


@TASK_UTILS.register_module()
class DetectronBBoxCoder(LegacyDeltaXYWHBBoxCoder):
    """Legacy coder that decodes what it encodes.

    ``bbox_transform`` there. mmdet's legacy coder gives boxes that are half
    a pixel larger on every side; its comment says that models of mmdet 1.x
    gain from it, since there nothing else gives back the last pixel.

    Args:
        **kwargs: Those of ``LegacyDeltaXYWHBBoxCoder``.
    """

    def decode(
        self,
        bboxes: Tensor,
        pred_bboxes: Tensor,
        max_shape: Optional[Sequence[int]] = None,
        wh_ratio_clip: float = 16 / 1000,
    ) -> Tensor:
        """As in mmdet.

        Args:
            bboxes (Tensor): (N, 4), RoIs or anchors.
            pred_bboxes (Tensor): (N, 4) or (N, 4 * classes), deltas.
            max_shape (Sequence[int], optional): H and W of the image, to cut
                boxes to. Defaults to None.
            wh_ratio_clip (float): How much smaller or larger a side may
                become. Defaults to 16 / 1000.

        Returns:
            Tensor: Boxes, of the shape of ``pred_bboxes``.
        """
        decoded = get_box_tensor(super().decode(bboxes, pred_bboxes, None, wh_ratio_clip))
        start, last = decoded.view(-1, 4).split(2, dim=-1)
        start, last = start + 0.5, last - 0.5
        if max_shape is not None:
            edge = last.new_tensor((max_shape[1] - 1, max_shape[0] - 1))
            start, last = (torch.minimum(point.clamp(min=0), edge) for point in (start, last))
        decoded = torch.cat([start, last], dim=-1).view_as(pred_bboxes)
        return HorizontalBoxes(decoded) if self.use_box_type else decoded


@TASK_UTILS.register_module()
class DetectronOverlaps2D(BboxOverlaps2D):
    """IoU of boxes that name their last pixel."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = 'iou', is_aligned: bool = False) -> Tensor:
        """As in mmdet.

        Args:
            bboxes1 (Tensor): (M, 4), x1, y1, x2, y2.
            bboxes2 (Tensor): (N, 4).
            mode (str): 'iou', 'iof' or 'giou'. Defaults to 'iou'.
            is_aligned (bool): Pair boxes one by one. Defaults to False.

        Returns:
            Tensor: (M, N), or (M, ) if aligned.
        """
        return super().__call__(_where_it_ends(bboxes1), _where_it_ends(bboxes2), mode, is_aligned)


def _where_it_ends(bboxes: Tensor) -> Tensor:
    bboxes = get_box_tensor(bboxes)[..., :4]
    return torch.cat([bboxes[..., :2], bboxes[..., 2:] + 1], dim=-1)


@MODELS.register_module()
class DetectronRoIHead(PANetRoIHead):
    """PANet's RoI head that hands out mmdet's boxes.

    Predicted boxes get the pixel that ends them, one of the original image,
    ``xyxy_to_xywh`` there. Without it every box is short of it, which shows
    on small objects. Masks are trained on the grid of the RoI from x1 to x2
    in both code bases, and are pasted there.

    Args:
        **kwargs: The arguments of :class:`PANetRoIHead`.
    """

    def predict(
        self, x: tuple, rpn_results_list: InstanceList, batch_data_samples: SampleList, rescale: bool = False
    ) -> InstanceList:
        """As in mmdet, with boxes up to where they end.

        Args:
            x (tuple[Tensor]): N2 to N6, (B, C, H_l, W_l).
            rpn_results_list (list[InstanceData]): Proposals of each image,
                in pixels of the input, to their last pixel.
            batch_data_samples (list[DetDataSample]): With the sizes and the
                scale factor of each image.
            rescale (bool): Whether results are in pixels of the original
                image. Defaults to False.

        Returns:
            list[InstanceData]: ``bboxes``, ``scores``, ``labels`` and, with
            a mask head, ``masks`` of each image.
        """
        results_list = super().predict(x, rpn_results_list, batch_data_samples, rescale)
        for results, sample in zip(results_list, batch_data_samples):
            start, last = results.bboxes.split(2, dim=-1)
            pixel = (1, 1) if rescale else sample.scale_factor
            height, width = (sample.ori_shape if rescale else sample.img_shape)[:2]
            end = torch.minimum(last + last.new_tensor(pixel), last.new_tensor((width, height)))
            results.bboxes = torch.cat([start, end], dim=-1)
        return results_list
