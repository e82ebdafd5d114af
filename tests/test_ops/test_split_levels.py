# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmpanet.ops import split_levels

N, L, C, H, W = 5, 3, 4, 7, 6
# How the pooling lays its result out in memory: the channels innermost or not, the levels or the RoIs outermost.
LAYOUTS = {
    'channels innermost': lambda: torch.randn(N, L, H, W, C).permute(0, 1, 4, 2, 3),
    'contiguous': lambda: torch.randn(N, L, C, H, W),
    'levels outermost': lambda: torch.randn(L, N, C, H, W).transpose(0, 1),
    'with gaps': lambda: torch.randn(N, L, C, 2 * H, W)[:, :, :, ::2],
    'expanded': lambda: torch.randn(N, 1, C, H, W).expand(N, L, C, H, W),
    'no RoIs': lambda: torch.randn(0, L, C, H, W),
}


@pytest.mark.parametrize('used', [range(L), [1], [0, 2]], ids=str)
@pytest.mark.parametrize('layout', LAYOUTS)
def test_gradients_are_those_of_unbind(layout, used):
    values = LAYOUTS[layout]()
    weights = torch.randn(L, *values[:, 0].shape)
    grads = []
    for split in (split_levels, lambda x: x.unbind(1)):
        x = values.detach().requires_grad_()
        levels = split(x)
        assert all(level.equal(values[:, i]) for i, level in enumerate(levels)) and len(levels) == L
        sum((levels[i].square() * weights[i]).sum() for i in used).backward()
        grads.append(x.grad)
    assert grads[0].equal(grads[1])


def test_each_gradient_is_copied_once_into_the_layout_of_the_pooling():
    x = LAYOUTS['channels innermost']().requires_grad_()
    # an operation before the split, as in the heads: a leaf would get its gradient in its own layout in any case
    pooled = x * 1
    strides = []
    pooled.register_hook(lambda grad: strides.append(grad.stride()))
    torch.stack([level * 2 for level in split_levels(pooled)]).sum().backward()
    assert strides == [pooled.stride()]


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_numbers_take_torchs_own_way(dtype):
    x = torch.randn(N, L, C, H, W, dtype=dtype).requires_grad_()
    levels = split_levels(x)
    assert 'Unbind' in type(levels[0].grad_fn).__name__
    levels[1].sum().backward()
    assert x.grad.dtype == dtype and x.grad[:, 1].eq(1).all() and x.grad[:, ::2].eq(0).all()


def test_autocast_takes_torchs_own_way():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        level = split_levels(torch.randn(N, L, C, H, W).requires_grad_())[0]
    assert 'Unbind' in type(level.grad_fn).__name__


def test_nothing_is_recorded_without_gradients():
    assert split_levels(torch.randn(N, L, C, H, W))[0].grad_fn is None
    with torch.no_grad():
        assert split_levels(torch.randn(N, L, C, H, W).requires_grad_())[0].grad_fn is None
