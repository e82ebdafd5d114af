# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the models run on: images, objects, proposals and detections, the same for all of them.

With random weights a detector proposes noise and detects nothing, so that its heads would have nothing to do. Here
every proposal and detection is given: a model runs its RPN, and what comes out is replaced.
"""

from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import torch
import torch.nn as nn
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import BitmapMasks

# Edge (root of the area) of the smallest and largest box, as a share of the image's short edge, and how much longer
# than wide a box may be. Sizes are log-uniform in between, as those of objects in photographs roughly are.
SMALLEST, LARGEST = 1 / 32, 5 / 8
ASPECT = 2.0
POSITIVE_IOU = 0.5  # of mmdet's assigner for RoIs


class Workload(NamedTuple):
    """What a run works on; sizes in pixels, numbers an image."""

    height: int = 480
    width: int = 640
    batch: int = 1
    rois: int = 1000  # proposals, in inference and before the sampling of training
    detections: int = 100  # boxes that get a mask
    positives: int = 64  # RoIs of training that match an object
    objects: int = 8
    seed: int = 0

    def images(self) -> Tensor:
        """(B, 3, H, W), as if normalised."""
        return torch.randn(self.batch, 3, self.height, self.width, generator=self._generator(0))

    def samples(self) -> List[DetDataSample]:
        """One an image, with objects; boxes are x1, y1, x2, y2."""
        size = (self.height, self.width)
        samples = []
        for i in range(self.batch):
            boxes = self._boxes(self.objects, self._generator(1 + i))
            metainfo = dict(
                img_id=i,
                img_shape=size,
                batch_input_shape=size,
                pad_shape=size,
                ori_shape=size,
                scale_factor=(1.0, 1.0),
            )
            objects = InstanceData(bboxes=boxes, labels=torch.arange(self.objects) % 2, masks=self._ellipses(boxes))
            samples.append(DetDataSample(metainfo=metainfo, gt_instances=objects))
        return samples

    def proposals(self) -> List[InstanceData]:
        """``rois`` an image; with the objects themselves, ``positives`` of them match an object."""
        return [self._proposals(i, sample.gt_instances.bboxes) for i, sample in enumerate(self.samples())]

    def _proposals(self, image: int, objects: Tensor) -> InstanceData:
        generator = self._generator(1000 + image)
        matching = objects[torch.arange(max(0, self.positives - self.objects)) % self.objects]
        edges = (matching[:, 2:] - matching[:, :2]).repeat(1, 2)
        matching = matching + edges * (torch.rand(matching.shape, generator=generator) - 0.5) * 0.1
        others = self._boxes(2 * self.rois, generator)
        others = others[bbox_overlaps(others, objects).amax(1) < POSITIVE_IOU]
        boxes = torch.cat([matching, others])[: self.rois]
        boxes = boxes[torch.randperm(len(boxes), generator=generator)]
        scores = torch.linspace(1, 0.01, len(boxes))
        return InstanceData(bboxes=boxes, scores=scores, labels=torch.zeros(len(boxes), dtype=torch.long))

    def found(self) -> List[InstanceData]:
        """``detections`` an image."""
        return [
            InstanceData(
                bboxes=self._boxes(self.detections, self._generator(2000 + i)),
                scores=torch.linspace(1, 0.05, self.detections),
                labels=torch.zeros(self.detections, dtype=torch.long),
            )
            for i in range(self.batch)
        ]

    def _boxes(self, count: int, generator: torch.Generator) -> Tensor:
        """Boxes within the image, (count, 4)."""
        short = min(self.height, self.width)
        edge, aspect, x, y = torch.rand(4, count, generator=generator)
        edge = short * SMALLEST * (LARGEST / SMALLEST) ** edge
        aspect = ASPECT ** (aspect - 0.5)
        width, height = (edge * aspect).clamp(max=self.width - 1), (edge / aspect).clamp(max=self.height - 1)
        x, y = x * (self.width - width), y * (self.height - height)
        return torch.stack([x, y, x + width, y + height], dim=1)

    def _ellipses(self, boxes: Tensor) -> BitmapMasks:
        """One in every box."""
        y, x = np.mgrid[: self.height, : self.width]
        masks = []
        for x1, y1, x2, y2 in boxes.tolist():
            masks.append(((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1)
        return BitmapMasks(np.array(masks, dtype=np.uint8), self.height, self.width)

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 10_000 + stream)


def pin(model: nn.Module, workload: Workload, device: torch.device) -> None:
    """Give a two-stage model the workload's proposals and detections in place of its own.

    The RPN and its NMS still run. Left out is what follows the heads and is the same for every model: the NMS of the
    detections and the pasting of masks into the image. A one-stage model stays as it is.
    """
    if not hasattr(model, 'roi_head'):
        return
    proposals = [one.to(device) for one in workload.proposals()]
    found = [one.to(device) for one in workload.found()]
    if getattr(model, 'rpn_head', None) is not None:
        _replace_results(model.rpn_head, proposals)
    for head in _each(model.roi_head.bbox_head):
        head.predict_by_feat = lambda *args, **kwargs: [one.clone() for one in found]
    if getattr(model.roi_head, 'mask_head', None) is not None:
        for head in _each(model.roi_head.mask_head):
            head.predict_by_feat = lambda *args, **kwargs: [one.clone() for one in found]


def _replace_results(rpn_head: nn.Module, proposals: List[InstanceData]) -> None:
    predict, loss_and_predict = rpn_head.predict, rpn_head.loss_and_predict

    def pinned_predict(*args, **kwargs) -> List[InstanceData]:
        predict(*args, **kwargs)
        return [one.clone() for one in proposals]

    def pinned_loss_and_predict(*args, **kwargs) -> Tuple[Dict[str, Tensor], List[InstanceData]]:
        losses, _ = loss_and_predict(*args, **kwargs)
        return losses, [one.clone() for one in proposals]

    rpn_head.predict, rpn_head.loss_and_predict = pinned_predict, pinned_loss_and_predict


def _each(head: nn.Module) -> List[nn.Module]:
    """A cascade has a list of heads."""
    return list(head) if isinstance(head, nn.ModuleList) else [head]
