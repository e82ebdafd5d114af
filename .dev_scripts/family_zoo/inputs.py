# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Inputs that the models of each package take: two objects on each generated image."""

from typing import Any, Iterator

import numpy as np
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from swap_zoo.sweep import NotWorkingError
from torch import nn

from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmpanet.swap.verification import generated_image

SIZE = (128, 128)
BOXES = torch.tensor([[8.0, 16.0, 72.0, 80.0], [40.0, 40.0, 120.0, 104.0]])
META = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1.0, 1.0), flip=False)


def settings_of(node: Any, type_: str) -> Iterator[dict]:
    """All dicts of this type in a config."""
    if isinstance(node, dict):
        if str(node.get('type', '')).rpartition('.')[2] == type_:
            yield node
        for value in node.values():
            yield from settings_of(value, type_)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from settings_of(value, type_)


def detection_sample(boxes: Any = BOXES) -> DetDataSample:
    masks = torch.zeros(len(BOXES), *SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, BOXES.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(metainfo=dict(img_id=0, img_path='image.jpg', **META))
    sample.gt_instances = InstanceData(
        bboxes=boxes.clone(), labels=torch.zeros(len(BOXES), dtype=torch.long), masks=BitmapMasks(masks.numpy(), *SIZE)
    )
    sample.ignored_instances = InstanceData(bboxes=boxes[:0].clone(), labels=torch.zeros(0, dtype=torch.long))
    return sample


def mmocr_data(cfg: Config, model: nn.Module, batch: int, training: bool) -> dict:
    from mmocr.structures import TextDetDataSample

    images = [generated_image(*SIZE) for _ in range(batch)]
    if training and cfg.model.type == 'MMDetWrapper':
        return dict(inputs=images, data_samples=[detection_sample() for _ in images])
    samples = []
    for _ in images:
        sample = TextDetDataSample(metainfo=dict(img_path='image.jpg', **META))
        polygons = [np.array([x1, y1, x2, y1, x2, y2, x1, y2], dtype=np.float32) for x1, y1, x2, y2 in BOXES.tolist()]
        sample.gt_instances = InstanceData(
            bboxes=BOXES.clone(),
            polygons=polygons,
            labels=torch.zeros(len(BOXES), dtype=torch.long),
            ignored=torch.zeros(len(BOXES), dtype=torch.bool),
        )
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def mmrotate_data(cfg: Config, model: nn.Module, batch: int, training: bool) -> dict:
    from mmrotate.structures.bbox import RotatedBoxes

    centers, sizes = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
    boxes = RotatedBoxes(torch.cat([centers, sizes * torch.tensor([1.0, 0.5]), torch.tensor([[0.3], [-0.6]])], dim=1))
    # The objects have the form of the training data: rotated boxes or four corners.
    pipeline = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    forms = [step['box_type_mapping']['gt_bboxes'] for step in settings_of(pipeline, 'ConvertBoxType')]
    forms = forms or [step['box_type'] for step in settings_of(pipeline, 'LoadAnnotations') if step.get('box_type')]
    for form in forms[:1]:
        boxes = boxes.convert_to(form)
    samples = [detection_sample(boxes) for _ in range(batch)]
    return dict(inputs=[generated_image(*SIZE) for _ in range(batch)], data_samples=samples)


def mmdet3d_data(cfg: Config, model: nn.Module, batch: int, training: bool) -> dict:
    """Images, their boxes, and one camera."""
    from mmdet3d.structures import CameraInstance3DBoxes, Det3DDataSample

    kind = cfg.model.type.rpartition('.')[2]
    if kind in ('MaskRCNN', 'CascadeRCNN', 'HybridTaskCascade', 'FasterRCNN'):
        return dict(
            inputs=[generated_image(*SIZE) for _ in range(batch)],
            data_samples=[detection_sample() for _ in range(batch)],
        )
    if kind != 'FCOSMono3D':
        raise NotWorkingError('not tried: the script makes images for one camera, and no points, voxels or views')
    camera = np.array([[100.0, 0, 64, 0], [0, 100, 64, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float32)
    coders = [*settings_of(cfg.model, 'FCOS3DBBoxCoder'), *settings_of(cfg.model, 'PGDBBoxCoder')]
    width = coders[0]['code_size'] if coders else 7
    samples = []
    for _ in range(batch):
        sample = Det3DDataSample(
            metainfo=dict(
                cam2img=camera,
                ori_cam2img=camera,
                lidar2img=camera,
                depth2img=camera,
                box_type_3d=CameraInstance3DBoxes,
                box_mode_3d=0,
                trans_mat=np.eye(3, dtype=np.float32),
                **META,
            )
        )
        # Center, size, yaw and velocity.
        numbers = torch.tensor(
            [[1.0, 0.5, 12.0, 2.0, 1.5, 4.0, 0.2, 0.0, 0.0], [-2.0, 0.5, 20.0, 2.0, 1.5, 4.0, 0.2, 0.0, 0.0]]
        )
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=CameraInstance3DBoxes(numbers[:, :width], box_dim=width),
            labels_3d=torch.zeros(2, dtype=torch.long),
            centers_2d=torch.tensor([[40.0, 48.0], [80.0, 72.0]]),
            depths=torch.tensor([12.0, 20.0]),
            attr_labels=torch.zeros(2, dtype=torch.long),
        )
        sample.gt_instances = InstanceData(
            bboxes=BOXES.clone(), labels=torch.zeros(2, dtype=torch.long), attr_labels=torch.zeros(2, dtype=torch.long)
        )
        samples.append(sample)
    return dict(inputs=dict(img=[generated_image(*SIZE) for _ in range(batch)]), data_samples=samples)


INPUTS = dict(mmocr=mmocr_data, mmrotate=mmrotate_data, mmdet3d=mmdet3d_data)
