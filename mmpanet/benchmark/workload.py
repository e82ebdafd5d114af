# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the models run on: images, objects, proposals and detections, the same for all models.

A detector with random weights detects nothing, so its heads would have nothing to do. Therefore all proposals and
detections are given: the model runs its RPN, and its output is replaced.
"""

from typing import Any, Dict, List, NamedTuple, Tuple

import numpy as np
import torch
import torch.nn as nn
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import BitmapMasks
from mmpanet.utils.errors import BenchmarkError

# Edge (square root of the area) of the smallest and the largest box, as a share of the image's short edge. Edges are
# log-uniform between them, which is roughly how the sizes of objects in photographs are distributed.
SMALLEST, LARGEST = 1 / 32, 5 / 8
MAX_ASPECT = 2.0  # of width / height, and of height / width
POSITIVE_IOU = 0.5  # of mmdet's assigner for RoIs


class Workload(NamedTuple):
    """Sizes in pixels and counts per image."""

    height: int = 480
    width: int = 640
    batch: int = 1
    rois: int = 1000  # proposals, in inference and before the sampler of training
    detections: int = 100  # boxes that get a mask
    positives: int = 64  # RoIs of training that match an object
    objects: int = 8
    seed: int = 0

    def check_training(self) -> None:
        """Raise a BenchmarkError for counts of a training that would not be those of the RoIs."""
        if self.positives < self.objects:
            raise BenchmarkError(
                f'{self.positives} positives must be {self.objects} or more, because the {self.objects} objects of an '
                'image are RoIs too'
            )
        matching = self.positives - self.objects
        if self.rois <= matching:
            raise BenchmarkError(f'{self.rois} RoIs must be more than the {matching} of them that match an object')

    def make_images(self) -> Tensor:
        """(B, 3, H, W), distributed as normalized images are."""
        return torch.randn(self.batch, 3, self.height, self.width, generator=self._generator(0))

    def make_samples(self) -> List[DetDataSample]:
        """One sample per image, with its objects. Boxes are x1, y1, x2, y2."""
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
            labels = torch.zeros(self.objects, dtype=torch.long)  # a class that every model has
            objects = InstanceData(bboxes=boxes, labels=labels, masks=self._ellipses(boxes))
            samples.append(DetDataSample(metainfo=metainfo, gt_instances=objects))
        return samples

    def make_proposals(self) -> List[InstanceData]:
        """``rois`` proposals per image. ``positives`` RoIs match an object; the objects themselves count as RoIs."""
        return [self._proposals_of(i, sample.gt_instances.bboxes) for i, sample in enumerate(self.make_samples())]

    def _proposals_of(self, image: int, objects: Tensor) -> InstanceData:
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

    def make_detections(self) -> List[InstanceData]:
        """``detections`` boxes per image."""
        return [
            InstanceData(
                bboxes=self._boxes(self.detections, self._generator(2000 + i)),
                scores=torch.linspace(1, 0.05, self.detections),
                labels=torch.zeros(self.detections, dtype=torch.long),
            )
            for i in range(self.batch)
        ]

    def _boxes(self, count: int, generator: torch.Generator) -> Tensor:
        """Random boxes within the image, (count, 4)."""
        short = min(self.height, self.width)
        edge, aspect, x, y = torch.rand(4, count, generator=generator)
        edge = short * SMALLEST * (LARGEST / SMALLEST) ** edge
        aspect = MAX_ASPECT ** (aspect - 0.5)
        width, height = (edge * aspect).clamp(max=self.width - 1), (edge / aspect).clamp(max=self.height - 1)
        x, y = x * (self.width - width), y * (self.height - height)
        return torch.stack([x, y, x + width, y + height], dim=1)

    def _ellipses(self, boxes: Tensor) -> BitmapMasks:
        """One ellipse in each box."""
        y, x = np.mgrid[: self.height, : self.width]
        masks = []
        for x1, y1, x2, y2 in boxes.tolist():
            masks.append(((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1)
        return BitmapMasks(np.array(masks, dtype=np.uint8), self.height, self.width)

    def _generator(self, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 10_000 + stream)


def fix_proposals_and_detections(module: nn.Module, workload: Workload, device: torch.device) -> None:
    """Give a two-stage detector the workload's proposals and detections in place of its own.

    The RPN and its NMS still run. The NMS of the detections and the pasting of masks into the image do not run; they
    cost the same for every model. A one-stage detector stays as it is.
    """
    if not hasattr(module, 'roi_head'):
        return
    proposals = [one.to(device) for one in workload.make_proposals()]
    detections = [one.to(device) for one in workload.make_detections()]

    def fixed_detections(*args: Any, **kwargs: Any) -> List[InstanceData]:
        return [one.clone() for one in detections]

    if getattr(module, 'rpn_head', None) is not None:
        _fix_proposals(module.rpn_head, proposals)
    for name in ('bbox_head', 'mask_head'):
        head = getattr(module.roi_head, name, None)
        for stage in head if isinstance(head, nn.ModuleList) else [head]:  # a cascade has several stages
            if stage is not None:
                stage.predict_by_feat = fixed_detections


def _fix_proposals(rpn_head: Any, proposals: List[InstanceData]) -> None:
    predict, loss_and_predict = rpn_head.predict, rpn_head.loss_and_predict

    def fixed_predict(*args: Any, **kwargs: Any) -> List[InstanceData]:
        predict(*args, **kwargs)
        return [one.clone() for one in proposals]

    def fixed_loss_and_predict(*args: Any, **kwargs: Any) -> Tuple[Dict[str, Tensor], List[InstanceData]]:
        losses, _ = loss_and_predict(*args, **kwargs)
        return losses, [one.clone() for one in proposals]

    rpn_head.predict, rpn_head.loss_and_predict = fixed_predict, fixed_loss_and_predict
