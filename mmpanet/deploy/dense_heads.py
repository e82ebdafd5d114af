# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Boxes from the dense heads: the RPN's proposals, and the detections of one-stage detectors."""

from typing import List, Sequence, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from .box_coding import decode_boxes
from .operators import ANY_BOX, NO_BOX, best_of, suppressed_scores, take


class DenseHead(nn.Module):
    """What RPN and one-stage heads share: scores, deltas and priors of each level in the order of mmdet."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.coder = head.bbox_coder
        self.test_cfg = head.test_cfg

    def levels(self, feats: Sequence[Tensor]) -> List[Tuple[Tensor, ...]]:
        """Outputs of the head for each level.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse.

        Returns:
            list[tuple[Tensor, ...]]: For each level scores after the sigmoid (B, n, classes), box deltas (B, n, 4) and
            priors (n, 4) or (n, 2), then, if the head has one, the score factor after the sigmoid (B, n).
        """
        outputs = []
        for i, (scores, deltas, *factors) in enumerate(zip(*self.head(tuple(feats)))):
            priors = self.head.prior_generator.single_level_grid_priors(
                scores.shape[-2:], i, dtype=scores.dtype, device=scores.device
            )
            flat = [_flat(scores, self.head.cls_out_channels).sigmoid(), _flat(deltas, 4), priors]
            outputs.append((*flat, *(_flat(factor, 1).sigmoid()[..., 0] for factor in factors)))
        return outputs

    def without_small(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, n), with ``NO_BOX`` for boxes (B, n, 4) that are not larger than ``min_bbox_size``."""
        smallest = self.test_cfg.get('min_bbox_size', -1)
        if smallest < 0:
            return scores
        sides = boxes[..., 2:] - boxes[..., :2]
        return torch.where(sides.min(dim=-1)[0] > smallest, scores, torch.full_like(scores, NO_BOX))


class Proposals(DenseHead):
    """The RPN up to its NMS: ``RPNHead.predict_by_feat`` with a fixed number of proposals per image.

    Args:
        head (nn.Module): mmdet's ``RPNHead`` with ``test_cfg``.
    """

    def forward(self, feats: Sequence[Tensor], sizes: Tensor) -> Tuple[Tensor, Tensor]:
        """Propose.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse.
            sizes (Tensor): (B, 2), height and width of each image in pixels, without padding.

        Returns:
            tuple[Tensor, Tensor]: Boxes (B, P, 4) in pixels and scores (B, P), with P = ``max_per_img``. A place that
            no proposal fills has the score ``NO_BOX``.
        """
        cfg = self.test_cfg
        all_boxes, all_scores = [], []
        for scores, deltas, priors in self.levels(feats):
            scores = scores[..., 0]
            priors = priors[None].expand(scores.shape[0], -1, -1)
            if cfg.get('nms_pre', -1) > 0:
                scores, best = best_of(scores, cfg.nms_pre)
                deltas, priors = take(deltas, best), take(priors, best)
            boxes = decode_boxes(self.coder, priors, deltas, sizes)
            scores = self.without_small(boxes, scores)
            all_boxes.append(boxes)
            all_scores.append(suppressed_scores(boxes, scores, cfg.nms, ANY_BOX))
        scores, best = best_of(torch.cat(all_scores, dim=1), cfg.max_per_img)
        return take(torch.cat(all_boxes, dim=1), best), scores


class OneStageDetections(DenseHead):
    """A one-stage head up to its NMS: ``BaseDenseHead.predict_by_feat``.

    Args:
        head (nn.Module): mmdet's RetinaHead, FCOSHead or ATSSHead with ``test_cfg``.
    """

    def forward(self, feats: Sequence[Tensor], sizes: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """Detect.

        Args:
            feats (Sequence[Tensor]): Maps (B, C, H_l, W_l), fine to coarse.
            sizes (Tensor): (B, 2), height and width of each image in pixels, without padding.

        Returns:
            tuple[Tensor, Tensor, Tensor]: Boxes (B, k, 4), scores (B, k) and labels (B, k), with
            k = ``max_per_img``. A place that no detection fills has the score ``NO_BOX``.
        """
        cfg, num_classes = self.test_cfg, self.head.cls_out_channels
        all_boxes, all_scores, all_labels = [], [], []
        for scores, deltas, priors, *factors in self.levels(feats):
            scores = torch.where(scores > cfg.get('score_thr', 0), scores, torch.full_like(scores, NO_BOX))
            scores, best = best_of(scores.flatten(1), cfg.nms_pre)
            place = torch.div(best, num_classes, rounding_mode='floor')
            priors = priors[None].expand(scores.shape[0], -1, -1)
            boxes = decode_boxes(self.coder, take(priors, place), take(deltas, place), sizes)
            for factor in factors:
                scores = torch.where(scores > ANY_BOX, scores * factor.gather(1, place), scores)
            all_boxes.append(boxes)
            all_scores.append(self.without_small(boxes, scores))
            all_labels.append(best - place * num_classes)
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in (all_boxes, all_scores, all_labels))
        scores, best = self._suppress(boxes, scores, labels)
        return take(boxes, best), scores, labels.gather(1, best)

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tuple[Tensor, Tensor]:
        """NMS within each class: boxes of another class are moved away, as mmcv does it."""
        cfg = self.test_cfg
        if not cfg.nms.get('class_agnostic', False):
            reach = boxes.flatten(1).max(dim=1)[0] + 1
            boxes = boxes + (labels.to(boxes) * reach[:, None])[..., None]
        return best_of(suppressed_scores(boxes, scores, cfg.nms, ANY_BOX), cfg.max_per_img)


def _flat(outputs: Tensor, depth: int) -> Tensor:
    """(B, A * depth, H, W) to (B, H * W * A, depth)."""
    return outputs.permute(0, 2, 3, 1).reshape(outputs.shape[0], -1, depth)
