# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Sequence, Tuple

import torch
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from ..panet_roi_head import PANetRoIHead


def end_after_last_pixel(boxes: Tensor, pixel: Sequence[float], size: Sequence[int]) -> Tensor:
    """Turn inclusive boxes into mmdet's, which end behind their last pixel.

    Args:
        boxes (Tensor): (n, 4), x1, y1, x2, y2.
        pixel (Sequence[float]): Width and height of a pixel of the original image, in the unit of the boxes.
        size (Sequence[int]): Height and width of the image, in the same unit.

    Returns:
        Tensor: (n, 4), within the image.
    """
    first, last = boxes.split(2, dim=-1)
    end = torch.minimum(last + last.new_tensor(pixel), last.new_tensor((size[1], size[0])))
    return torch.cat([first, end], dim=-1)


@MODELS.register_module(name=['InclusiveBoxRoIHead', 'DetectronRoIHead'])
class InclusiveBoxRoIHead(PANetRoIHead):
    """PANet's RoI head that works on inclusive boxes and predicts mmdet's.

    Source: ``xyxy_to_xywh`` in ``lib/utils/boxes.py`` of Detectron.pytorch. One pixel of the original image is added to
    x2 and y2 of every predicted box. Without it each box misses its last column and row, which lowers the AP of small
    objects. Masks need no change: both code bases train them on the grid of the RoI from x1 to x2, and paste them
    there.

    Args:
        **kwargs: The arguments of :class:`PANetRoIHead`.
    """

    def predict(
        self,
        x: Tuple[Tensor, ...],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Predict as mmdet does, and extend the boxes to where they end.

        Args:
            x (tuple[Tensor]): N2 to N6, each (B, C, H_l, W_l).
            rpn_results_list (list[InstanceData]): Proposals of each image: inclusive boxes in pixels of the input.
            batch_data_samples (list[DetDataSample]): One sample for each image, with its sizes and its scale factor.
            rescale (bool): Give the results in pixels of the original image. Defaults to False.

        Returns:
            list[InstanceData]: ``bboxes``, ``scores``, ``labels`` and, with a mask head, ``masks`` of each image.
        """
        results_list = super().predict(x, rpn_results_list, batch_data_samples, rescale)
        for results, sample in zip(results_list, batch_data_samples):
            pixel = (1, 1) if rescale else sample.scale_factor
            size = (sample.ori_shape if rescale else sample.img_shape)[:2]
            results.bboxes = end_after_last_pixel(results.bboxes, pixel, size)
        return results_list
