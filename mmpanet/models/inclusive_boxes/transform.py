# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import torch
from mmcv.transforms import BaseTransform

from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import get_box_tensor


@TRANSFORMS.register_module(name=['ToInclusiveBoxes', 'ToDetectronBoxes'])
class ToInclusiveBoxes(BaseTransform):
    """Move x2 and y2 of the ground truth from where a box ends to its last pixel.

    Source: ``xywh_to_xyxy`` in ``lib/utils/boxes.py`` of Detectron.pytorch. In the pipeline it stands after the flip,
    because mmdet flips boxes that name where they end, and before the resize, because the pixel is one of the original
    image.
    """

    def transform(self, results: dict) -> dict:
        """Change ``gt_bboxes`` in place.

        Args:
            results (dict): The output of mmdet's ``LoadAnnotations``.

        Returns:
            dict: The same dict.
        """
        boxes = get_box_tensor(results['gt_bboxes'])
        boxes[:, 2:] = torch.maximum(boxes[:, 2:] - 1, boxes[:, :2])
        return results
