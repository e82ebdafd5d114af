# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The maximum over levels, against ``torch.maximum`` and against a plain loop."""

from functools import reduce

import pytest
import torch

from mmpanet.ops import maximum
from mmpanet.ops.level_maximum import _Maximum


def leaves(*shape, num_levels=4, dtype=torch.float32):
    return [torch.randn(*shape, dtype=dtype).requires_grad_() for _ in range(num_levels)]


@pytest.mark.parametrize('num_levels', [1, 2, 4])
@pytest.mark.parametrize('shape', [(3, 8, 14, 14), (5, 16), (0, 16)])
def test_values_and_gradients_are_those_of_torch(shape, num_levels):
    levels = leaves(*shape, num_levels=num_levels)
    weight = torch.randn(*shape)
    ours, theirs = maximum(levels), reduce(torch.maximum, levels)
    assert torch.equal(ours, theirs)
    our_grads = torch.autograd.grad((ours * weight).sum(), levels)
    their_grads = torch.autograd.grad((theirs * weight).sum(), levels)
    assert all(torch.equal(one, other) for one, other in zip(our_grads, their_grads))


def test_first_of_equal_levels_gets_the_gradient():
    levels = [torch.tensor(row, requires_grad=True) for row in ([1.0, 0.0, 2.0], [1.0, 3.0, 2.0], [0.0, 3.0, 2.0])]
    maximum(levels).backward(torch.tensor([10.0, 20.0, 30.0]))
    assert [level.grad.tolist() for level in levels] == [[10.0, 0.0, 30.0], [0.0, 20.0, 0.0], [0.0, 0.0, 0.0]]


def test_nan_spreads_and_no_gradient_is_lost():
    levels = leaves(2, 3)
    with torch.no_grad():
        levels[1][0, 0] = float('nan')
    fused = maximum(levels)
    assert fused.isnan().tolist() == [[True, False, False], [False, False, False]]
    fused.backward(torch.ones(2, 3))
    assert torch.equal(sum(level.grad for level in levels), torch.ones(2, 3))


def test_frozen_level_and_second_derivatives():
    levels = leaves(2, 3, dtype=torch.float64)
    levels[2].requires_grad_(False)
    assert torch.autograd.gradcheck(lambda *x: _Maximum.apply(*x) ** 3, levels)
    assert torch.autograd.gradgradcheck(lambda *x: _Maximum.apply(*x) ** 3, levels)


def test_only_plain_tensors_in_training_are_ours():
    ours = type(maximum(leaves(2, 3)).grad_fn).__name__
    assert ours.startswith('_Maximum')
    assert not type(maximum(leaves(2, 3, dtype=torch.bfloat16)).grad_fn).__name__.startswith('_Maximum')
    with torch.no_grad():
        assert maximum(leaves(2, 3)).grad_fn is None
