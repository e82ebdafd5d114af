# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A small PANet in float64 whose RoIs come with its images, so that its gradients do not depend on the batch."""

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet.models import MaskRCNN
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks

SIZE = 64


class PinnedProposals(MaskRCNN):
    """A Mask R-CNN whose RoIs come with the images, so that a change of batch changes none."""

    def loss(self, inputs, samples):
        features = self.extract_feat(inputs.to(next(self.parameters()).dtype))  # the preprocessor makes it float32
        return {
            **self.rpn_head.loss(features, samples),
            **self.roi_head.loss(features, [sample.proposals.clone() for sample in samples], samples),
        }


def build(config):
    init_default_scope('mmdet')
    MMLogger.get_instance('mmengine').setLevel('ERROR')
    torch.manual_seed(0)
    cfg = Config.fromfile(config).model
    cfg.backbone.norm_eval = True  # statistics over a batch are those of one process
    cfg.train_cfg.rpn.assigner.update(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5)  # no anchor is left out
    cfg.type = PinnedProposals
    model = MODELS.build(cfg)
    model.init_weights()
    return model.double().train()


def batch(objects):
    """An image for each number of objects, which are boxes filled with a mask; each object has five positive RoIs."""
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for count in objects:
        inputs.append(torch.randint(0, 255, (3, SIZE, SIZE), generator=generator).double())
        corners = torch.rand(count, 2, generator=generator).double() * 30
        boxes = torch.cat([corners, corners + 16 + torch.rand(count, 2, generator=generator).double() * 8], dim=1)
        masks = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        near = torch.cat([boxes + shift for shift in (0.5, -0.5, 1.0, -1.0)])
        far = torch.tensor([[50.0, 50.0, 63.0, 63.0], [56.0, 2.0, 63.0, 9.0], [0.0, 56.0, 10.0, 63.0]]).double()
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.arange(count) % 4, masks=BitmapMasks(masks.numpy(), SIZE, SIZE)
        )
        sample.proposals = InstanceData(bboxes=torch.cat([near, far]))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)
