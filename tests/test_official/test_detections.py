# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""From the model's outputs to boxes of COCO: mmdet's way with the official config, and theirs.

Theirs is written out again from ``generate_anchors.py``, ``generate_proposals.py``, ``test.py`` and ``boxes.py`` of the
code base under the official one.
"""

import numpy as np
import pytest
import torch

from mmdet.structures import DetDataSample
from mmpanet.checkpoints.official_conversion import from_official
from mmpanet.models import InclusiveBoxRoIHead, PANetRoIHead
from .conftest import DATA, build_model, official_checkpoint

NUM_PROPOSALS = 200  # of 1000, for speed


def anchors_of(stride):
    boxes = []
    for ratio in (0.5, 1, 2):
        width = np.round(np.sqrt(stride * stride / ratio))
        side = np.array([width, np.round(width * ratio)]) * 8
        center = 0.5 * (stride - 1)
        boxes.append([*(center - 0.5 * (side - 1)), *(center + 0.5 * (side - 1))])
    return np.array(boxes)


def decode(boxes, deltas, weights, height, width):
    """``bbox_transform`` and ``clip_tiled_boxes``; (N, 4) and (N, 4)."""
    size = boxes[:, 2:] - boxes[:, :2] + 1
    center = boxes[:, :2] + 0.5 * size
    deltas = deltas / weights
    center = center + deltas[:, :2] * size
    size = np.exp(np.minimum(deltas[:, 2:], np.log(1000.0 / 16.0))) * size
    boxes = np.hstack([center - 0.5 * size, center + 0.5 * size - 1])
    return np.clip(boxes, 0, [width - 1, height - 1, width - 1, height - 1])


def nms(boxes, scores, threshold):
    area = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    order, kept = np.argsort(-scores), []
    while len(order):
        i, order = order[0], order[1:]
        kept.append(i)
        shared = np.minimum(boxes[i, 2:], boxes[order, 2:]) - np.maximum(boxes[i, :2], boxes[order, :2]) + 1
        shared = np.maximum(shared, 0).prod(1)
        order = order[shared / (area[i] + area[order] - shared) < threshold]
    return np.array(kept, int)


def official_proposals(scores, deltas, height, width):
    boxes, kept_scores = [], []
    for i, (score, delta) in enumerate(zip(scores, deltas)):
        stride = 4 * 2**i
        y, x = np.mgrid[: score.shape[1], : score.shape[2]] * stride
        anchors = (np.stack([x, y, x, y], -1)[:, :, None] + anchors_of(stride)).reshape(-1, 4)
        score = 1 / (1 + np.exp(-score.transpose(1, 2, 0).ravel()))
        delta = delta.transpose(1, 2, 0).reshape(-1, 4)
        best = np.argsort(-score)[:1000]
        proposals = decode(anchors[best], delta[best], (1, 1, 1, 1), height, width)
        kept = nms(proposals, score[best], 0.7)
        boxes.append(proposals[kept])
        kept_scores.append(score[best][kept])
    return np.concatenate(boxes)[np.argsort(-np.concatenate(kept_scores))[:NUM_PROPOSALS]]


def official_detections(rois, scores, deltas, scale, height, width):
    """Label, score, x1, y1 and where it ends, x1 + w and y1 + h of COCO."""
    rois, found = rois / scale, []
    for label in range(1, 81):
        boxes = decode(rois, deltas[:, 4 * label : 4 * label + 4], (10, 10, 5, 5), height, width)
        likely = scores[:, label] > 0.05
        boxes, score = boxes[likely], scores[likely, label]
        kept = nms(boxes, score, 0.5)
        sizes = boxes[kept, 2:] - boxes[kept, :2] + 1
        found += zip([label - 1] * len(kept), score[kept], *boxes[kept, :2].T, *(boxes[kept, :2] + sizes).T)
    return np.array(sorted(found, key=lambda detection: -detection[1])[:100])


@pytest.fixture(scope='module')
def model():
    """The model of boxes alone. The model with masks has the same box branch."""
    model = build_model('det')
    model.load_state_dict(from_official(official_checkpoint('det'))['state_dict'], strict=True)
    model.rpn_head.test_cfg.max_per_img = NUM_PROPOSALS
    return model


@pytest.fixture(scope='module')
def image():
    with np.load(DATA / 'panet_det.npz') as file:
        return torch.from_numpy(file['image'][:1])


@torch.no_grad()
def theirs(model, image, scale, height, width):
    levels = model.extract_feat(image)
    scores, deltas = ([level[0].double().numpy() for level in levels_out] for levels_out in model.rpn_head(levels))
    rois = official_proposals(scores, deltas, *image.shape[2:])
    indexed = torch.from_numpy(np.pad(rois, ((0, 0), (1, 0)))).float()
    outputs = model.roi_head._bbox_forward(levels, indexed)
    # in their order of classes
    probability = outputs['cls_score'].double().softmax(1).roll(1, 1).numpy()
    deltas = np.pad(outputs['bbox_pred'].double().numpy(), ((0, 0), (4, 0)))
    return official_detections(rois, probability, deltas, scale, height, width)


@torch.no_grad()
def ours(model, image, scale, height, width, rescale=True):
    sample = DetDataSample(
        metainfo=dict(
            img_shape=tuple(image.shape[2:]),
            ori_shape=(height, width),
            scale_factor=(scale, scale),
            batch_input_shape=tuple(image.shape[2:]),
            pad_shape=tuple(image.shape[2:]),
        )
    )
    [result] = model.predict(image, [sample], rescale=rescale)
    found = result.pred_instances
    return np.column_stack([found.labels, found.scores, found.bboxes])


def distances(found, expected):
    """For each expected box, how far a corner of the nearest box of its class and score is."""
    result = []
    for label, score, *box in expected:
        alike = found[(found[:, 0] == label) & (np.abs(found[:, 1] - score) < 1e-4)]
        result.append(np.abs(alike[:, 2:] - box).max(1).min() if len(alike) else np.inf)
    return np.array(result)


def test_detections_are_theirs(model, image):
    expected = theirs(model, image, 1.0, 128, 160)
    found = ours(model, image, 1.0, 128, 160)
    assert len(found) == len(expected) == 100
    # Two boxes may overlap by just the threshold, up to rounding.
    assert np.sort(distances(found, expected))[94] < 1e-3


def test_detections_are_theirs_in_pixels_of_the_original(model, image):
    """They decode in pixels of the original image, mmdet in those of the input, to a part of a pixel the same."""
    expected = theirs(model, image, 1.6, 80, 100)
    found = ours(model, image, 1.6, 80, 100)
    far = np.sort(distances(found, expected))
    assert far[49] < 0.1 and far[74] < 0.3, far
    # No box leaves the image, and one at its edge ends there.
    assert found[:, 4].max() == 100 and found[:, 5].max() == 80

    scaled = ours(model, image, 1.6, 80, 100, rescale=False)
    far = np.sort(distances(scaled / [1, 1, 1.6, 1.6, 1.6, 1.6], found))
    assert far[74] < 1e-3  # NMS counts pixels of the one or of the other

    model.roi_head.__class__ = PANetRoIHead
    short = ours(model, image, 1.6, 80, 100)
    model.roi_head.__class__ = InclusiveBoxRoIHead
    assert np.sort(distances(short, expected))[49] > 0.9
