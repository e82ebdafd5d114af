# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""RoI heads: boxes of the proposals, in one stage or several, and masks of the boxes."""

from typing import List, Sequence, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from .box_coding import decode_boxes
from .mask_heads import for_runtimes
from .operators import NO_BOX, best_of, suppressed_scores, take
from .pooling import Pooling
from .winograd_convs import with_winograd_convs


class RoIBoxes(nn.Module):
    """Pooling, box heads and NMS.

    A cascade refines the boxes in each stage and averages the class scores of its stages, before the softmax, as
    ``CascadeRoIHead`` does.

    Args:
        roi_head (nn.Module): A RoI head of mmdet or mmpanet with ``test_cfg``.
        winograd (bool): Whether 3x3 convs become :class:`.winograd_convs.WinogradConv`. Defaults to False.
    """

    def __init__(self, roi_head: nn.Module, winograd: bool = False) -> None:
        super().__init__()
        self.pooling = nn.ModuleList(Pooling(one) for one in each(roi_head.bbox_roi_extractor))
        heads = each(roi_head.bbox_head)
        self.heads = nn.ModuleList(map(with_winograd_convs, heads) if winograd else heads)
        self.test_cfg = roi_head.test_cfg

    def forward(
        self, feats: Sequence[Tensor], proposals: Tensor, valid: Tensor, sizes: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse.
            proposals (Tensor): (B, P, 4), x1, y1, x2, y2 in pixels.
            valid (Tensor): (B, P), bool: places that a proposal fills.
            sizes (Tensor): (B, 2), height and width of each image in pixels, without padding.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (B, k, 4), scores (B, k) and labels (B, k), best first. A place that
            no detection fills has the score ``NO_BOX``.
        """
        logits: List[Tensor] = []
        for stage, (pooling, head) in enumerate(zip(self.pooling, self.heads)):
            stage_logits, deltas = head(pooling(feats, to_rois(proposals)))
            logits.append(stage_logits)
            deltas = deltas.view(*proposals.shape[:2], -1)
            if stage < len(self.heads) - 1:
                proposals = self._refine(head, proposals, stage_logits, deltas, sizes)
        scores = (sum(logits) / len(logits)).softmax(-1)[:, :-1].view(*proposals.shape[:2], -1)
        scores = torch.where(valid[..., None], scores, torch.full_like(scores, NO_BOX))
        boxes = decode_boxes(head.bbox_coder, proposals, deltas, sizes)
        return self._suppress(boxes, scores)

    @staticmethod
    def _refine(head: nn.Module, proposals: Tensor, logits: Tensor, deltas: Tensor, sizes: Tensor) -> Tensor:
        """Boxes of the class with the best score, as ``BBoxHead.regress_by_class`` has it."""
        if not head.reg_class_agnostic:
            label = logits[:, :-1].argmax(dim=1).view(*proposals.shape[:2], 1)
            columns = label * 4 + torch.arange(4, device=label.device)
            deltas = deltas.gather(2, columns)
        return decode_boxes(head.bbox_coder, proposals, deltas, sizes)

    def _suppress(self, boxes: Tensor, scores: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """NMS within each class: ``multiclass_nms`` of mmdet.

        Args:
            boxes (Tensor): (B, P, 4 * classes), or (B, P, 4) for all classes alike.
            scores (Tensor): (B, P, classes).
        """
        cfg = self.test_cfg
        batch, num_rois, num_classes = scores.shape[0], scores.shape[1], self.heads[-1].num_classes
        boxes = boxes.view(batch, num_rois, -1, 4)
        if boxes.shape[2] != num_classes:
            boxes = boxes.expand(-1, -1, num_classes, -1)
        # One group for each class: a class's P boxes lie together.
        boxes = boxes.transpose(1, 2).reshape(batch, -1, 4)
        scores = scores.transpose(1, 2).reshape(batch, -1)
        groups = batch if cfg.nms.get('class_agnostic', False) else batch * num_classes
        kept = suppressed_scores(boxes.reshape(groups, -1, 4), scores.reshape(groups, -1), cfg.nms, cfg.score_thr).view(
            batch, -1
        )
        count = cfg.max_per_img if cfg.max_per_img > 0 else int(num_rois) * num_classes
        best_scores, best = best_of(kept, count)
        return take(boxes, best), best_scores, torch.div(best, num_rois, rounding_mode='floor')


class RoIMasks(nn.Module):
    """Pooling and mask heads; a cascade averages the masks of its stages.

    Args:
        roi_head (nn.Module): A RoI head of mmdet or mmpanet with a mask branch.
        winograd (bool): Whether 3x3 convs become :class:`.winograd_convs.WinogradConv`. Defaults to False.
    """

    def __init__(self, roi_head: nn.Module, winograd: bool = False) -> None:
        super().__init__()
        self.pooling = nn.ModuleList(Pooling(one) for one in each(roi_head.mask_roi_extractor))
        heads = [for_runtimes(head) for head in each(roi_head.mask_head)]
        self.heads = nn.ModuleList(map(with_winograd_convs, heads) if winograd else heads)

    def forward(self, feats: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Predict masks.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse.
            boxes (Tensor): (B, k, 4), x1, y1, x2, y2 in pixels.
            labels (Tensor): (B, k), from 0 to classes - 1.

        Returns:
            Tensor: (B, k, h, w), probabilities of the class of each box.
        """
        rois = to_rois(boxes)
        stages = [
            self._of_labels(head, head(pool(feats, rois)), labels) for pool, head in zip(self.pooling, self.heads)
        ]
        masks = (sum(stages) / len(stages))[:, 0]
        return masks.view(boxes.shape[0], boxes.shape[1], masks.shape[1], masks.shape[2])

    @staticmethod
    def _of_labels(head: nn.Module, logits: Tensor, labels: Tensor) -> Tensor:
        """Probabilities (N, 1, h, w) of the labels."""
        if not head.class_agnostic:
            index = labels.reshape(-1, 1, 1, 1).expand(-1, 1, logits.shape[2], logits.shape[3])
            logits = logits.gather(1, index)
        return logits.sigmoid()


def paste_masks(masks: Tensor, boxes: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Draw masks into the image, bilinear: ``_do_paste_mask`` of mmdet on a CPU, which draws a pixel around a box too.

    Bilinear weights are a product of one weight for the row and one for the column, so that two matrix products draw a
    mask. mmdet's ``grid_sample`` reads four values for each pixel.

    Args:
        masks (Tensor): (B, k, h, w), probabilities.
        boxes (Tensor): (B, k, 4), x1, y1, x2, y2 in pixels.
        height (Tensor): Of the image.
        width (Tensor): Of the image.

    Returns:
        Tensor: (B, k, height, width), probabilities, 0 from two pixels outside of the boxes on.
    """
    rows = _hat_weights(boxes[..., 1], boxes[..., 3], masks.shape[2], height)
    columns = _hat_weights(boxes[..., 0], boxes[..., 2], masks.shape[3], width)
    return rows @ masks @ columns.transpose(-1, -2)


def _hat_weights(start: Tensor, end: Tensor, size: int, length: Tensor) -> Tensor:
    """(B, k, length, size): what each pixel of a side takes of the ``size`` values between ``start`` and ``end``."""
    pixels = torch.arange(length, device=start.device).to(start) + 0.5
    extent = end - start
    inside = (pixels - start[..., None]) / torch.where(extent > 0, extent, torch.ones_like(extent))[..., None]
    # An empty box has no inside: its pixels read the middle, as in mmdet.
    position = torch.where((extent > 0)[..., None], inside, torch.full_like(inside, 0.5)) * size - 0.5
    weights = (1 - (position[..., None] - torch.arange(size, device=start.device)).abs()).clamp(min=0)
    drawn = (pixels > start[..., None].floor() - 1) & (pixels < end[..., None].ceil() + 1)
    return weights * drawn[..., None].to(weights)


def to_rois(boxes: Tensor) -> Tensor:
    """Boxes (B, n, 4) as RoIs (B * n, 5), with the index of the image in front."""
    image = torch.arange(boxes.shape[0], device=boxes.device).to(boxes)
    image = image[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat([image, boxes], dim=2).reshape(-1, 5)


def each(parts: nn.Module) -> List[nn.Module]:
    """The stages of a cascade, or the one stage of other heads."""
    return list(parts) if isinstance(parts, nn.ModuleList) else [parts]
