# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The grids of each level, against ``Tensor.unbind``."""

import pytest
import torch

from mmpanet.ops import unbind_levels
from mmpanet.ops.unbind_levels import _UnbindLevels


def pooled(num_rois, num_levels=4, channels=3, height=2, width=5, dtype=torch.float32):
    """Grids as the pooling gives them: the channels come last in memory."""
    grids = torch.randn(num_rois, num_levels, height, width, channels, dtype=dtype)
    return grids.permute(0, 1, 4, 2, 3).requires_grad_()


def is_ours(x):
    return unbind_levels(x)[0].grad_fn.name().startswith('_UnbindLevels')


@pytest.mark.parametrize('num_rois, num_levels', [(6, 4), (1, 1), (0, 4), (5, 2)])
def test_grids_and_gradients_are_those_of_unbind(num_rois, num_levels):
    x = pooled(num_rois, num_levels)
    ours, theirs = unbind_levels(x), x.unbind(1)
    assert len(ours) == num_levels and is_ours(x)
    assert all(torch.equal(one, other) and one.stride() == other.stride() for one, other in zip(ours, theirs))
    # Gradients in two memory formats: of convs, and of an fc that reads flattened grids.
    weights = [torch.randn(2 * 5 * 3) for _ in ours]
    losses = [
        sum(level.square().sum() + (level.flatten(1) @ weight).sum() for level, weight in zip(levels, weights))
        for levels in (ours, theirs)
    ]
    one, other = (torch.autograd.grad(loss, x)[0] for loss in losses)
    torch.testing.assert_close(one, other)
    assert one.permute(0, 1, 3, 4, 2).is_contiguous()


def test_a_level_without_a_gradient_gets_zeros():
    x = pooled(3)
    unbind_levels(x)[2].sum().backward()
    assert x.grad.sum((0, 2, 3, 4)).tolist() == [0, 0, 3 * 30, 0]


def test_second_derivatives():
    x = pooled(2, 2, dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: sum(i * y**3 for i, y in enumerate(_UnbindLevels.apply(x), 1)), x)


def test_others_are_torchs():
    assert not is_ours(pooled(3, dtype=torch.float64))
    assert not is_ours(torch.randn(3, 4, 3, 2, 5, requires_grad=True))  # grids of mmcv's RoIAlign
    with torch.no_grad():
        assert unbind_levels(pooled(3))[0].grad_fn is None
