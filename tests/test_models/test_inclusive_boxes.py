# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
import torch

from mmdet.registry import MODELS, TASK_UTILS, TRANSFORMS
from mmpanet import models

# The list in a comment of the first Faster R-CNN code, with pixels counted from 1.
WELL_KNOWN = [
    [-83, -39, 100, 56],
    [-175, -87, 192, 104],
    [-359, -183, 376, 200],
    [-55, -55, 72, 72],
    [-119, -119, 136, 136],
    [-247, -247, 264, 264],
    [-35, -79, 52, 96],
    [-79, -167, 96, 184],
    [-167, -343, 184, 360],
]


def build(**kwargs):
    cfg = dict(type='InclusiveAnchorGenerator', center_offset=0.5, ratios=[0.5, 1.0, 2.0])
    return TASK_UTILS.build({**cfg, **kwargs})


@pytest.mark.parametrize(
    'registry, name, former_name',
    [
        (TASK_UTILS, 'InclusiveAnchorGenerator', 'DetectronAnchorGenerator'),
        (TASK_UTILS, 'InclusiveBBoxCoder', 'DetectronBBoxCoder'),
        (TASK_UTILS, 'InclusiveBBoxOverlaps2D', 'DetectronOverlaps2D'),
        (MODELS, 'InclusiveBoxRoIHead', 'DetectronRoIHead'),
        (TRANSFORMS, 'ToInclusiveBoxes', 'ToDetectronBoxes'),
    ],
)
def test_configs_may_use_the_former_names(registry, name, former_name):
    """As a type in a config, as a type with mmdet's scope, and as an imported name."""
    for known_as in (name, former_name, f'mmdet.{former_name}'):
        assert registry.get(known_as).__name__ == name
    assert getattr(models, name) is getattr(models, former_name) is registry.get(name)


def test_the_well_known_nine():
    [anchors] = build(strides=[16], scales=[8, 16, 32]).base_anchors
    assert (anchors + 1).tolist() == WELL_KNOWN


@pytest.mark.parametrize('scale_major', [True, False])
def test_one_by_one_in_float64(scale_major):
    strides, scales, ratios = [4, 8, 16, 32, 64], [4, 8], [0.5, 1.0, 2.0]
    generator = build(strides=strides, scales=scales, scale_major=scale_major)
    for stride, anchors in zip(strides, generator.base_anchors):
        expected = {}
        for ratio in ratios:
            width = np.round(np.sqrt(stride**2 / ratio))
            height = np.round(width * ratio)
            for scale in scales:
                reach = (np.array([width, height]) * scale - 1) / 2
                center = (stride - 1) / 2
                expected[ratio, scale] = [*(center - reach), *(center + reach)]
        order = sorted(expected) if scale_major else sorted(expected, key=lambda key: key[::-1])
        np.testing.assert_allclose(anchors.numpy(), [expected[key] for key in order])


def test_on_the_grid():
    [anchors] = build(strides=[16], scales=[8]).grid_priors([(2, 3)], device='cpu')
    assert anchors.shape == (2 * 3 * 3, 4)
    assert torch.equal(anchors[3 * 4], anchors[0] + torch.tensor([16.0, 16.0, 16.0, 16.0]))
