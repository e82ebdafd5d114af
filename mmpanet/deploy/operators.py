# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Operators whose ONNX form is not what mmcv exports: RoIAlign and non-maximum suppression."""

from typing import Any, Tuple

import torch
from mmcv.ops import nms, roi_align
from torch import Tensor


class ONNXRoIAlign(torch.autograd.Function):
    """mmcv's RoIAlign in PyTorch, ONNX's own ``RoiAlign`` in the graph.

    mmcv's symbolic function shifts the RoIs by half a pixel and leaves ``coordinate_transformation_mode`` at its
    default. From opset 16 on that default shifts them again.
    """

    @staticmethod
    def forward(
        ctx: Any, feat: Tensor, rois: Tensor, height: int, width: int, scale: float, sampling_ratio: int, aligned: bool
    ) -> Tensor:
        """Pool ``rois`` (N, 5) from ``feat`` (B, C, H, W) to (N, C, height, width)."""
        return roi_align(feat.contiguous(), rois, (height, width), scale, sampling_ratio, 'avg', aligned)

    @staticmethod
    def symbolic(
        g: Any, feat: Any, rois: Any, height: int, width: int, scale: float, sampling_ratio: int, aligned: bool
    ) -> Any:
        """The node."""

        def columns(*indices: int) -> Any:
            return g.op('Gather', rois, g.op('Constant', value_t=torch.tensor(indices)), axis_i=1)

        axis = g.op('Constant', value_t=torch.tensor([1]))
        image = g.op('Cast', g.op('Squeeze', columns(0), axis), to_i=7)  # int64
        return g.op(
            'RoiAlign',
            feat,
            columns(1, 2, 3, 4),
            image,
            coordinate_transformation_mode_s='half_pixel' if aligned else 'output_half_pixel',
            mode_s='avg',
            output_height_i=height,
            output_width_i=width,
            sampling_ratio_i=sampling_ratio,
            spatial_scale_f=scale,
        )


class ONNXNonMaxSuppression(torch.autograd.Function):
    """mmcv's NMS in PyTorch, ONNX's own ``NonMaxSuppression`` in the graph."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
        """Suppress boxes within each group.

        Args:
            boxes (Tensor): (G, K, 4), K boxes of each of G groups, x1, y1, x2, y2.
            scores (Tensor): (G, K).
            iou_threshold (float): A box goes if its IoU with a better one is larger.
            score_threshold (float): A box counts if its score is larger.

        Returns:
            Tensor: (n, 2), int64: group and index of each box that stays.
        """
        kept = []
        for group, (group_boxes, group_scores) in enumerate(zip(boxes, scores)):
            candidates = (group_scores > score_threshold).nonzero()[:, 0]
            if len(candidates):
                _, best = nms(group_boxes[candidates], group_scores[candidates], iou_threshold)
                candidates = candidates[best]
            kept.append(torch.stack([torch.full_like(candidates, group), candidates], dim=1))
        return torch.cat(kept)

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, iou_threshold: float, score_threshold: float) -> Any:
        """The node, without the column of classes: there is one class."""

        def constant(value: Any, dtype: torch.dtype) -> Any:
            return g.op('Constant', value_t=torch.tensor(value, dtype=dtype))

        selected = g.op(
            'NonMaxSuppression',
            # OpenVINO wants to know the 4 before it runs, and does not find it behind quantized deltas.
            g.op('Reshape', boxes, constant([0, -1, 4], torch.int64)),
            g.op('Unsqueeze', scores, constant([1], torch.int64)),
            constant([2**31 - 1], torch.int64),
            constant([iou_threshold], torch.float32),
            constant([score_threshold], torch.float32),
        )
        return g.op('Gather', selected, constant([0, 2], torch.int64), axis_i=1)


def suppressed_scores(boxes: Tensor, scores: Tensor, nms_cfg: dict, score_threshold: float) -> Tensor:
    """Scores after NMS within each group: those of boxes that stay, and :data:`NO_BOX` for the others.

    Args:
        boxes (Tensor): (G, K, 4).
        scores (Tensor): (G, K).
        nms_cfg (dict): ``iou_threshold``, and ``offset`` if boxes name their last pixel (1) as mmcv has it.
        score_threshold (float): A box counts if its score is larger.

    Returns:
        Tensor: (G, K).
    """
    if nms_cfg.get('offset', 0):
        boxes = torch.cat([boxes[..., :2], boxes[..., 2:] + nms_cfg['offset']], dim=2)
    kept = ONNXNonMaxSuppression.apply(boxes, scores, nms_cfg['iou_threshold'], score_threshold)
    places = kept[:, 0] * scores.shape[1] + kept[:, 1]
    stays = torch.zeros_like(scores).flatten().scatter(0, places, 1.0).view_as(scores)
    return torch.where(stays > 0, scores, torch.full_like(scores, NO_BOX))


def best_of(scores: Tensor, count: int) -> Tuple[Tensor, Tensor]:
    """The best ``count`` of each row, by descending score.

    Args:
        scores (Tensor): (B, K) of a size K that may be open in the graph.
        count (int): How many. If K is smaller, the rest is :data:`NO_BOX`.

    Returns:
        tuple[Tensor, Tensor]: Scores and indices (B, count). Indices of the rest point to the last column.
    """
    last = scores.shape[1] - 1
    filler = scores.new_full((1, count), NO_BOX).expand(scores.shape[0], count)
    values, indices = torch.cat([scores, filler], dim=1).topk(count, dim=1)
    return values, indices.clamp(max=last)


def take(rows: Tensor, indices: Tensor) -> Tensor:
    """Rows (B, K, D) at ``indices`` (B, k) of their second dimension: (B, k, D)."""
    return rows.gather(1, indices[..., None].expand(-1, -1, rows.shape[2]))


# The score of a place in a list of fixed length that no box fills. Real scores lie from 0 to 1.
NO_BOX = -1.0
ANY_BOX = -0.5  # a threshold between the two
