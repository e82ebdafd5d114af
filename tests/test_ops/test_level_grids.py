# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The grids of each level, against torch's ``unbind``."""

import pytest
import torch

from mmpanet.ops import grids_of_levels
from mmpanet.ops.level_grids import _Unbind

SHAPES = [(3, 4, 8, 7, 7), (1, 1, 2, 14, 14), (0, 4, 8, 7, 7), (2, 5, 1, 1, 3)]


def channels_innermost(*shape):
    n, levels, c, h, w = shape
    return torch.randn(n, levels, h, w, c).permute(0, 1, 4, 2, 3)


def gradients(split, x, weights):
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    grids = split(x)
    (grad,) = torch.autograd.grad(sum((grid * weight).sin().sum() for grid, weight in zip(grids, weights)), x)
    return grids, grad


@pytest.mark.parametrize('make', [channels_innermost, torch.randn])
@pytest.mark.parametrize('shape', SHAPES)
def test_grids_and_gradients_are_those_of_unbind(shape, make):
    x = make(*shape)
    weights = torch.randn(*shape).unbind(1)
    ours, our_grad = gradients(grids_of_levels, x, weights)
    theirs, their_grad = gradients(lambda x: x.unbind(1), x, weights)
    assert len(ours) == len(theirs) == shape[1]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs))
    assert torch.equal(our_grad, their_grad)
    if x.numel() and shape[2] > 1:  # else several strides mean the same
        assert our_grad.stride() == x.stride()  # so that the backward of the pooling copies nothing


def test_level_without_gradient_gets_zeros():
    x = channels_innermost(2, 3, 4, 5, 5).requires_grad_()
    grids_of_levels(x)[1].sum().backward()
    assert torch.equal(x.grad.sum((0, 2, 3, 4)), torch.tensor([0.0, 200.0, 0.0]))


def test_overlapping_memory():
    x = torch.randn(2, 1, 3, 4, 4, requires_grad=True)
    weights = torch.randn(2, 5, 3, 4, 4)
    sum(
        (grid * weight).sum() for grid, weight in zip(grids_of_levels(x.expand(2, 5, 3, 4, 4)), weights.unbind(1))
    ).backward()
    assert torch.allclose(x.grad, weights.sum(1, keepdim=True))


def test_second_derivatives():
    x = torch.randn(2, 3, 2, 2, 2, dtype=torch.float64, requires_grad=True)

    def cubes(x):
        return tuple(grid**3 * (i + 1) for i, grid in enumerate(_Unbind.apply(x)))

    assert torch.autograd.gradcheck(cubes, x) and torch.autograd.gradgradcheck(cubes, x)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_torch(dtype):
    x = torch.randn(2, 3, 4, 5, 5, dtype=dtype, requires_grad=True)
    assert 'Unbind' in type(grids_of_levels(x)[0].grad_fn).__name__
    assert '_Unbind' not in type(grids_of_levels(x)[0].grad_fn).__name__
