# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The official configs against the rules of the official code, written out again."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from pycocotools import mask as mask_utils

from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmpanet.checkpoints.official_rules import CONFIGS
from .conftest import CONFIG_DIR


def load(kind):
    return Config.fromfile(CONFIG_DIR / CONFIGS[kind])


# Training


def test_what_learns_and_how_fast(kind):
    """``tools/train_net_step.py``, and ``FREEZE_AT`` of ``ResNet.py``."""
    cfg = load(kind)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = {id(group['params'][0]): group for group in optim_wrapper.param_groups}
    norms = {name for name, module in model.named_modules() if isinstance(module, torch.nn.GroupNorm)}
    for name, parameter in model.named_parameters():
        module, _, last = name.rpartition('.')
        of_a_frozen_norm = module.startswith('backbone') and ('bn' in module or 'downsample.1' in module)
        if of_a_frozen_norm or name.startswith(('backbone.conv1', 'backbone.layer1')):
            assert not parameter.requires_grad, name  # some versions of mmengine hand it to the optimizer all the same
            continue
        group = groups[id(parameter)]
        decays = last == 'weight' and module not in norms
        assert group['lr'] == (0.04 if last == 'bias' else 0.02), name
        assert group['weight_decay'] == (1e-4 if decays else 0), name
        assert group['momentum'] == 0.9


def test_box_loss_is_theirs():
    """``smooth_l1_loss`` of ``lib/utils/net.py``, on deltas times (10, 10, 5, 5)."""
    head = MODELS.build(load('det').model.roi_head.bbox_head)
    rois = torch.rand(64, 5) * 50
    rois[:, 3:] += rois[:, 1:3] + 1
    ends = torch.rand(64, 4) * 50
    ends[:, 2:] += ends[:, :2] + 1
    labels = torch.randint(0, 81, (64,)).clamp(max=80)
    labels[:32] = torch.randint(0, 80, (32,))
    positive = labels < 80
    weights = positive[:, None].expand(64, 4).float()
    deltas = torch.randn(64, 320)
    losses = head.loss(
        torch.randn(64, 81), deltas, rois, labels, torch.ones(64), head.bbox_coder.encode(rois[:, 1:], ends), weights
    )

    size = rois[:, 3:] - rois[:, 1:3] + 1
    end_size = ends[:, 2:] - ends[:, :2] + 1
    shift = (ends[:, :2] + end_size / 2 - rois[:, 1:3] - size / 2) / size
    targets = torch.cat([10 * shift, 5 * (end_size / size).log()], dim=1)
    rows = positive.nonzero().squeeze(1)
    difference = (deltas.view(64, 80, 4)[rows, labels[rows]] - targets[rows]).abs()
    beta = 1 / 3
    loss = torch.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2).sum() / 64
    torch.testing.assert_close(losses['loss_bbox'], loss)


def starts_uniform(weight, fan_in):
    """``XavierFill`` of Caffe2."""
    bound = (3 / fan_in) ** 0.5
    return 0.97 * bound < weight.abs().max() <= bound and abs(weight.std() / bound * 3**0.5 - 1) < 0.05


def starts_normal(weight, std):
    return weight.abs().max() > 3 * std and abs(weight.std() / std - 1) < 0.05


def test_initial_weights():
    model = load('mask').model
    neck, box_head, mask_head = (
        MODELS.build(cfg) for cfg in (model.neck, model.roi_head.bbox_head, model.roi_head.mask_head)
    )
    for module in (neck, box_head, mask_head):
        module.init_weights()
    for conv in (*neck.lateral_convs, *neck.fpn_convs, *neck.downsample_convs, *neck.bottom_up_convs):
        assert starts_uniform(conv.conv.weight, conv.conv.weight[0].numel())
    msra = (2 / (256 * 9)) ** 0.5  # fan-out
    for conv in (
        *box_head.shared_convs[0].levels,
        *box_head.shared_convs[1:],
        *mask_head.convs[0].levels,
        *mask_head.convs[1:],
        mask_head.conv4_fc,
    ):
        assert starts_normal(conv.conv.weight, msra)
    assert starts_uniform(box_head.shared_fcs[0].weight, 256 * 49)
    assert starts_normal(box_head.fc_cls.weight, 0.01) and starts_normal(box_head.fc_reg.weight, 0.001)
    assert starts_normal(mask_head.mask_fc.weight, 0.01)
    assert starts_normal(mask_head.upsample.weight, (2 / (256 * 4)) ** 0.5)
    assert starts_normal(mask_head.conv_logits.weight, (2 / 80) ** 0.5)

    box_head = MODELS.build(load('det_2fc').model.roi_head.bbox_head)
    box_head.init_weights()
    for fc in (*box_head.shared_fcs[0].levels, box_head.shared_fcs[1]):
        assert starts_uniform(fc.weight, fc.in_features)


# Ground truth


def annotation(x, y, width, height):
    """As ``LoadAnnotations`` makes it of a box of COCO."""
    return dict(gt_bboxes=HorizontalBoxes([[x, y, x + width, y + height]]))


@pytest.mark.parametrize(
    'box, expected',
    [((3, 4, 10, 20), [3, 4, 12, 23]), ((3.5, 4, 1.5, 1), [3.5, 4, 4, 4]), ((3, 4, 0.5, 0.25), [3, 4, 3, 4])],
)
def test_boxes_to_their_last_pixel(box, expected):
    """``xywh_to_xyxy`` of ``lib/utils/boxes.py``."""
    results = TRANSFORMS.build(dict(type='ToInclusiveBoxes'))(annotation(*box))
    assert results['gt_bboxes'].tensor.tolist() == [expected]


def test_pipeline_flips_and_scales_as_they_do(kind):
    """``flip_boxes``, then times the scale; the other way round is a pixel off."""
    results = annotation(30, 40, 100, 50)
    results.update(img=np.zeros((200, 300, 3), np.float32), img_shape=(200, 300))
    pipeline = load(kind).train_pipeline
    names = [step.type for step in pipeline]
    assert names == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'RandomFlip',
        'ToInclusiveBoxes',
        'RandomChoiceResize',
        'PackDetInputs',
    ]
    pipeline[2].prob = 1.0
    pipeline[4].scales = [(1400, 400)]
    for step in pipeline[2:5]:
        results = TRANSFORMS.build(step)(results)
    x1, x2 = 30, 30 + 100 - 1
    x1, x2 = 300 - x2 - 1, 300 - x1 - 1
    assert results['img'].dtype == np.float32 and results['img'].shape == (400, 600, 3)
    assert results['gt_bboxes'].tensor.tolist() == [[2 * x1, 80, 2 * x2, 2 * (40 + 50 - 1)]]


def test_coder_decodes_what_it_encodes():
    coder = TASK_UTILS.build(dict(type='InclusiveBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]))
    boxes, ends = (torch.rand(50, 4) * 60 for _ in range(2))
    boxes[:, 2:] += boxes[:, :2]
    ends[:, 2:] += ends[:, :2]
    deltas = coder.encode(boxes, ends)
    torch.testing.assert_close(coder.decode(boxes, deltas), ends, rtol=1e-4, atol=1e-4)
    of_classes = coder.decode(boxes, deltas.repeat(1, 3), max_shape=(40, 50))
    inside = ends.clone()
    inside[:, 0::2] = inside[:, 0::2].clamp(0, 49)
    inside[:, 1::2] = inside[:, 1::2].clamp(0, 39)
    torch.testing.assert_close(of_classes, inside.repeat(1, 3), rtol=1e-4, atol=1e-4)
    assert coder.decode(boxes[:0], deltas[:0], max_shape=(40, 50)).shape == (0, 4)


def test_overlaps_count_pixels():
    overlaps = TASK_UTILS.build(dict(type='InclusiveBBoxOverlaps2D'))
    a, b = (
        torch.tensor([[0.0, 0.0, 9.0, 9.0], [5.0, 5.0, 5.0, 5.0]]),
        torch.tensor([[5.0, 0.0, 14.0, 9.0], [5.0, 5.0, 5.0, 5.0]]),
    )
    torch.testing.assert_close(overlaps(a, b), torch.tensor([[50 / 150, 1 / 100], [1 / 100, 1.0]]))
    torch.testing.assert_close(overlaps(a, b, is_aligned=True), torch.tensor([50 / 150, 1.0]))


def test_mask_targets_are_drawn_as_they_draw_them():
    """``polys_to_mask_wrt_box`` of ``lib/utils/segms.py``."""
    cfg = load('mask')
    assert cfg.train_pipeline[1].poly2mask is False
    size = cfg.model.train_cfg.rcnn.mask_size
    rng = np.random.default_rng(0)
    for _ in range(20):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        radii = rng.uniform(10, 40, 12)
        polygon = np.stack([60 + radii * np.cos(angles), 50 + radii * np.sin(angles)], 1).ravel()
        x1, y1 = rng.uniform(5, 50, 2)
        box = np.array([x1, y1, *(np.array([x1, y1]) + rng.uniform(10, 60, 2))], np.float32)
        [target] = (
            PolygonMasks([[polygon]], 100, 120)
            .crop_and_resize(box[None], (size, size), inds=np.zeros(1, int))
            .to_ndarray()
        )
        inside = polygon.copy()
        inside[0::2] = (inside[0::2] - box[0]) * size / (box[2] - box[0])
        inside[1::2] = (inside[1::2] - box[1]) * size / (box[3] - box[1])
        expected = mask_utils.decode(mask_utils.frPyObjects([inside.tolist()], size, size))[..., 0]
        assert (target != expected).mean() < 0.01  # float32 against float64
