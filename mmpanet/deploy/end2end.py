# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A detector as one module of tensors alone, from the image to boxes, labels and masks."""

from typing import Optional, Tuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .dense_heads import OneStageDetections, Proposals
from .operators import ANY_BOX
from .roi_heads import RoIBoxes, RoIMasks, paste_masks


class EndToEnd(nn.Module):
    """What ``export_detector`` writes as one graph.

    Args:
        model (nn.Module): A detector of mmdet that :func:`.support.check_support` takes.
        paste (bool): Whether masks are drawn into the image. Without it they stay as the head gives them, 28 x 28
            probabilities in each box.
        winograd (bool): Whether the 3x3 convs of the RoI head become :class:`.winograd_convs.WinogradConv`. Defaults to
            False.
    """

    def __init__(self, model: nn.Module, paste: bool = True, winograd: bool = False) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(model.data_preprocessor)
        self.backbone = model.backbone
        self.neck = model.neck if model.with_neck else nn.Identity()
        roi_head = getattr(model, 'roi_head', None)
        self.dense = OneStageDetections(model.bbox_head) if roi_head is None else Proposals(model.rpn_head)
        self.boxes = None if roi_head is None else RoIBoxes(roi_head, winograd)
        self.masks: Optional[RoIMasks] = None
        self.mask_threshold = 0.0
        if roi_head is not None and roi_head.with_mask:
            self.masks = RoIMasks(roi_head, winograd)
            self.mask_threshold = roi_head.test_cfg.mask_thr_binary
        self.paste = paste

    def forward(self, image: Tensor, sizes: Optional[Tensor] = None) -> Tuple[Tensor, ...]:
        """Detect.

        Args:
            image (Tensor): (B, 3, H, W), BGR, or for a model of gray images (B, 1, H, W); from 0 to 255, uint8 or
                float.
            sizes (Tensor, optional): (B, 2), height and width of each image in the batch. What lies below and to the
                right of them is padding, whatever it holds. Defaults to None: all images are H x W.

        Returns:
            tuple[Tensor, ...]: ``dets`` (B, k, 5), x1, y1, x2, y2 in pixels of ``image`` and score, best first. Those
            of :class:`.InclusiveBoxRoIHead` end with their last pixel; its user adds one pixel of the original image;
            ``labels`` (B, k); and for a model with masks ``masks``, (B, k, H, W) or (B, k, 28, 28). k is the largest
            number of detections in an image of the batch. Images with fewer have rows of zeros with label -1.
        """
        height, width = image.shape[2], image.shape[3]
        if sizes is None:
            side = torch.ones(image.shape[0], 1, dtype=torch.int64, device=image.device)
            sizes = torch.cat([side * height, side * width], dim=1)
            x = self.preprocessing(image)
        else:
            x = self.preprocessing(image, sizes)
        feats = self.neck(self.backbone(x))
        if self.boxes is None:
            boxes, scores, labels = self.dense(feats, sizes)
        else:
            proposals, objectness = self.dense(feats, sizes)
            boxes, scores, labels = self.boxes(feats, proposals, objectness > ANY_BOX, sizes)
        found = scores > ANY_BOX
        count = found.sum(dim=1).max()
        outputs: Tuple[Tensor, ...] = ()
        if self.masks is not None:
            rows = count.clamp(min=1)  # onnxruntime cannot normalize groups of no RoI at all
            masks = self.masks(feats, boxes[:, :rows], labels[:, :rows])[:, :count]
            outputs = (self._in_image(masks, boxes[:, :count], found[:, :count], height, width),)
        boxes, scores, labels, found = boxes[:, :count], scores[:, :count], labels[:, :count], found[:, :count]
        dets = torch.cat([boxes, scores[..., None]], dim=2) * found[..., None].to(boxes)
        return (dets, torch.where(found, labels, torch.full_like(labels, -1)), *outputs)

    def _in_image(self, masks: Tensor, boxes: Tensor, found: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Masks (B, k, h, w) as they leave the graph, zero for places that no detection fills."""
        masks = masks * found[..., None, None].to(masks)
        if not self.paste:
            return masks
        pasted = paste_masks(masks, boxes, height, width)
        if self.mask_threshold < 0:  # mmdet's word for probabilities in eight bits
            return (pasted * 255).to(torch.uint8)
        return pasted >= self.mask_threshold


class Preprocessing(nn.Module):
    """``DetDataPreprocessor`` for a batch in one tensor: channel order, mean and std, padding.

    Args:
        preprocessor (nn.Module): The model's.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        self.flips_channels = preprocessor._channel_conversion
        # A config may give whole numbers.
        self.register_buffer('mean', preprocessor.mean.float().view(1, -1, 1, 1).clone())
        self.register_buffer('std', preprocessor.std.float().view(1, -1, 1, 1).clone())
        self.divisor = preprocessor.pad_size_divisor
        self.pad_value = float(preprocessor.pad_value)

    def forward(self, image: Tensor, sizes: Optional[Tensor] = None) -> Tensor:
        """Normalize and pad.

        Args:
            image (Tensor): (B, 3, H, W), BGR, from 0 to 255.
            sizes (Tensor, optional): (B, 2), height and width of each image; what lies outside becomes padding.

        Returns:
            Tensor: (B, 3, H', W'), with H' and W' the next multiples of ``pad_size_divisor``.
        """
        height, width = image.shape[2], image.shape[3]
        x = image.float()
        if self.flips_channels:
            x = x.flip(1)
        x = (x - self.mean) / self.std
        if sizes is not None:
            rows = torch.arange(height, device=x.device)[None, :] < sizes[:, :1]
            columns = torch.arange(width, device=x.device)[None, :] < sizes[:, 1:]
            inside = rows[:, None, :, None] & columns[:, None, None, :]
            x = torch.where(inside, x, torch.full_like(x, self.pad_value))
        bottom = (self.divisor - height % self.divisor) % self.divisor
        right = (self.divisor - width % self.divisor) % self.divisor
        return F.pad(x, (0, right, 0, bottom), value=self.pad_value)
