# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The grids of each level, and the memory format of their gradients."""

import pytest
import torch
import torch.nn as nn

from mmpanet.models.layers import LevelwiseFusion
from mmpanet.models.layers.levelwise_fusion import _unbind_levels


def pooled(num_rois, num_levels=4, channels=3, height=2, width=5):
    """Grids as the pooling gives them: the channels come last in memory."""
    grids = torch.randn(num_rois, num_levels, height, width, channels)
    return grids.permute(0, 1, 4, 2, 3).requires_grad_()


@pytest.mark.parametrize('num_rois, num_levels', [(6, 4), (1, 1), (0, 4), (5, 2)])
@pytest.mark.parametrize('memory', ['channels last', 'contiguous'])
def test_grids_and_gradients_are_those_of_unbind(num_rois, num_levels, memory):
    x = pooled(num_rois, num_levels)
    if memory == 'contiguous':  # grids of mmcv's RoIAlign
        x = x.detach().contiguous().requires_grad_()
    ours, theirs = _unbind_levels(x), x.unbind(1)
    assert len(ours) == num_levels
    assert all(torch.equal(one, other) and one.stride() == other.stride() for one, other in zip(ours, theirs))
    weights = [torch.randn(2 * 5 * 3) for _ in ours]
    # Gradients in two memory formats: of convs, and of an fc that reads flattened grids.
    losses = [
        sum(level.square().sum() + (level.flatten(1) @ weight).sum() for level, weight in zip(levels, weights))
        for levels in (ours, theirs)
    ]
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in losses))


@pytest.mark.parametrize('kind', ['fc', 'conv'])
def test_gradients_have_the_memory_format_of_the_pooling(kind):
    def layer():
        return nn.Sequential(nn.Flatten(), nn.Linear(30, 7)) if kind == 'fc' else nn.Conv2d(3, 4, 3, padding=1)

    grids, formats = pooled(6), []
    x = grids * 1  # the gradient of a leaf takes the format of the leaf, whatever it gets
    x.register_hook(lambda gradient: formats.append(gradient.permute(0, 1, 3, 4, 2).is_contiguous()))
    LevelwiseFusion(layer)(x).square().sum().backward()
    assert formats == [True]
