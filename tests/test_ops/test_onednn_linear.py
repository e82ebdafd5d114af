# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import importlib

import pytest
import torch
import torch.nn.functional as F
from mmengine.utils import digit_version

from mmpanet.ops import linear

fast = importlib.import_module('mmpanet.ops.onednn_linear')


@pytest.fixture
def counted(monkeypatch):
    """Count the calls of oneDNN, and call it for matrices of any size."""
    calls, product = [], fast._product
    monkeypatch.setattr(fast, 'PREFERS_ONEDNN', True)
    monkeypatch.setattr(fast, 'SMALLEST_PRODUCT', 1)
    monkeypatch.setattr(fast, '_product', lambda *args: calls.append(len(calls)) or product(*args))
    return calls


def matrices(n=37, k=29, m=53, dtype=torch.float32, bias=True):
    x, weight = torch.randn(n, k, dtype=dtype), torch.randn(m, k, dtype=dtype)
    return [one.requires_grad_() for one in (x, weight, *([torch.randn(m, dtype=dtype)] if bias else []))]


def both(inputs):
    """Outputs and gradients of our function and of torch's."""
    results = []
    for function in (linear, F.linear):
        out = function(*inputs)
        grad = torch.linspace(-1, 1, out.numel()).view_as(out).to(out)
        results.append([out, *torch.autograd.grad(out, inputs, grad)])
    return results


@pytest.mark.skipif(not fast.HAS_ONEDNN_LINEAR, reason='this torch has no oneDNN product')
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('n,k,m', [(37, 29, 53), (1, 64, 3), (64, 1, 64), (512, 12544, 128), (0, 16, 8)])
def test_forward_and_backward_against_torch(counted, n, k, m, bias):
    for one, other in zip(*both(matrices(n, k, m, bias=bias))):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4 * max(n, k) ** 0.5)
    assert len(counted) == (3 if n else 0)  # one in the forward, and one for each gradient except that of the bias


@pytest.mark.skipif(not fast.HAS_ONEDNN_LINEAR, reason='this torch has no oneDNN product')
def test_views_and_frozen_inputs(counted):
    x, weight, bias = matrices(64, 32, 16)
    for one, matrix, vector in ((x.t().contiguous().t(), weight, bias), (x[::2], weight[::2], bias[::2])):
        torch.testing.assert_close(linear(one, matrix, vector), F.linear(one, matrix, vector), rtol=1e-5, atol=1e-5)
    del counted[:]
    linear(x.detach(), weight, bias).sum().backward()
    assert len(counted) == 2  # no product for an input without a gradient
    torch.testing.assert_close(weight.grad, x.detach().sum(0).expand_as(weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_other_dtypes_are_torchs(counted, dtype):
    for one, other in zip(*both(matrices(dtype=dtype))):
        assert torch.equal(one, other)
    assert not counted


def test_autocast_small_and_traced_products_are_torchs(counted, monkeypatch):
    x, weight, bias = (one.detach() for one in matrices())
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    traced = torch.jit.trace(linear, (x, weight, bias), check_trace=False)
    assert 'aten::linear' in str(traced.graph)
    compiled = torch.compile(linear, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), F.linear(x, weight, bias))
    monkeypatch.setattr(fast, 'SMALLEST_PRODUCT', 2**26)
    linear(x, weight, bias)
    assert not counted


def test_a_matrix_that_does_not_fit_is_torchs_error(counted):
    with pytest.raises(RuntimeError, match='mat1 and mat2 shapes cannot be multiplied'):
        linear(torch.rand(5, 8), torch.rand(3, 9))
    assert not counted


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason='this torch has no oneDNN')
@pytest.mark.skipif(digit_version(torch.__version__) < digit_version('2.4'), reason='torch has it since 2.4')
def test_torch_has_the_operator():
    """It is private. If a new torch moves it, large fcs become slower on some processors, and this test says so."""
    assert fast.HAS_ONEDNN_LINEAR


def test_a_processor_that_prefers_mkl_gets_it(counted, monkeypatch):
    monkeypatch.setattr(fast, 'PREFERS_ONEDNN', False)
    for one, other in zip(*both(matrices())):
        assert torch.equal(one, other)
    assert not counted


def test_a_torch_without_it_works(monkeypatch):
    monkeypatch.setattr(fast, '_product', lambda *args: torch.ops.mkldnn.no_such_operator(*args))
    assert not fast._has_onednn_linear()
    monkeypatch.setattr(fast, 'HAS_ONEDNN_LINEAR', False)
    monkeypatch.setattr(fast, 'SMALLEST_PRODUCT', 0)
    for one, other in zip(*both(matrices())):
        assert torch.equal(one, other)


@pytest.mark.skipif(not fast.HAS_ONEDNN_LINEAR, reason='this torch has no oneDNN product')
def test_grids_are_flattened_and_no_copy_is_kept(counted):
    grids = torch.randn(6, 4, 3, 3, 8).permute(0, 1, 4, 2, 3).requires_grad_()
    _, weight, bias = matrices(1, 72, 5)
    grid, saved = grids[:, 1], []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: saved.append(one) or one, lambda one: one):
        out = linear(grid, weight, bias)
    assert {one.data_ptr() for one in saved} == {grid.data_ptr(), weight.data_ptr()}
    expected = F.linear(grid.flatten(1), weight, bias)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(out)
    for one, other in zip(*(torch.autograd.grad(result, (grids, weight, bias), grad) for result in (out, expected))):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
    assert len(counted) == 3
