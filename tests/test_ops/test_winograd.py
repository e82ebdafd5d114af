# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import copy
import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmpanet.models import FCFusionMaskHead, PANetNeck, PANetShared4Conv1FCBBoxHead
from mmpanet.models.layers import FastConv2d
from mmpanet.ops import conv3x3, direct_convolutions, winograd, winograd_matrices

SHAPES = [  # N, C, C', h, w
    (5, 16, 24, 14, 14),
    (7, 8, 8, 7, 7),
    (60, 32, 40, 14, 14),
    (3, 8, 8, 28, 5),
    (2, 13, 12, 9, 17),
    (1, 3, 4, 1, 1),
    (2, 1, 4, 9, 9),
    (2, 4, 1, 9, 9),
    (4, 6, 5, 2, 3),
    (0, 8, 8, 7, 7),
    (2, 8, 12, 40, 53),  # wide: several strips, the last one with columns beyond the border
    (1, 5, 6, 3, 48),
    (2, 24, 20, 50, 32),  # tall: two blocks of rows per grid, one strip
    (2, 8, 16, 40, 53),  # two blocks of rows per grid, several strips
    (1, 4, 3, 1, 33),
    (0, 4, 3, 40, 40),
]


@pytest.fixture
def counted(monkeypatch):
    """Count the results of the fast convolution and the gradients of its inputs, for grids of any size in blocks."""
    calls, convolve, gradients = [], winograd._convolve, winograd._gradients

    def count_gradients(x, weight, grad, needs_x, needs_weight):
        results = gradients(x, weight, grad, needs_x, needs_weight)
        if results[0] is not None:
            calls.append(len(x))
        return results

    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', True)
    monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', 1)
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 0)
    monkeypatch.setattr(winograd, 'BLOCK', 2**16)
    monkeypatch.setattr(winograd, '_convolve', lambda *args: calls.append(len(args[0])) or convolve(*args))
    monkeypatch.setattr(winograd, '_gradients', count_gradients)
    return calls


def direct(x, weight, bias=None):
    return F.conv2d(x, weight, bias, padding=1)


def inputs_of(n, c, channels, h, w, bias=True):
    x, weight = torch.randn(n, c, h, w), torch.randn(channels, c, 3, 3) / (9 * c) ** 0.5
    return [one.requires_grad_() for one in (x, weight, *([torch.randn(channels)] if bias else []))]


def outputs_and_gradients(function, inputs, dtype=torch.float32):
    inputs = [one.detach().to(dtype).requires_grad_() for one in inputs]
    out = function(*inputs)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    return [out, *torch.autograd.grad(out, inputs, grad)]


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_forward_and_backward_against_float64(counted, shape, bias):
    inputs = inputs_of(*shape, bias=bias)
    expected = outputs_and_gradients(direct, inputs, torch.float64)
    for i, (one, other) in enumerate(zip(outputs_and_gradients(conv3x3, inputs), expected)):
        assert one.shape == other.shape
        scale = other.abs().max().item() if other.numel() else 1.0
        allowed = 1e-4 if i in (1, 2) and shape[-1] <= winograd.WIDEST else 3e-5
        torch.testing.assert_close(one.double(), other, rtol=0, atol=allowed * max(scale, 1e-6))
    assert len(counted) == 2  # the result, and the gradient of x


@pytest.mark.parametrize('size, of_output, of_gradients', [(7, 2e-6, 2e-5), (14, 5e-6, 2e-5), (40, 4e-6, 4e-6)])
def test_rounding(counted, size, of_output, of_gradients):
    """Root mean squares, with the channels of PANet's heads. F.conv2d has 2e-7 to 1e-6."""
    inputs = inputs_of(2 if size == 40 else 20, 256, 128, size, size, bias=False)
    results = [outputs_and_gradients(*with_type) for with_type in ((conv3x3, inputs), (direct, inputs, torch.float64))]
    for one, other, allowed in zip(*results, [of_output, of_gradients, of_gradients]):
        assert ((one - other).square().mean() / other.square().mean()).sqrt() < allowed
    assert counted


def test_a_pixel_sees_its_neighbors_only(counted):
    """Products of other tiles cancel up to rounding, and those of other grids do not come in at all."""
    x = torch.zeros(3, 2, 14, 14)
    x[1, 0, 6, 9] = 1
    far = torch.ones(3, 2, 14, 14, dtype=torch.bool)
    far[1, :, 5:8, 8:11] = False
    weight = torch.randn(2, 2, 3, 3)
    out = conv3x3(x, weight)
    torch.testing.assert_close(out[1, :, 5:8, 8:11], weight[:, 0].flip(1, 2), rtol=0, atol=1e-5)
    assert out[far].abs().max() < 1e-5 and torch.equal(out[::2], torch.zeros(2, 2, 14, 14))


@pytest.mark.parametrize('tile', winograd_matrices.POINTS)
def test_the_matrices_convolve_in_one_dimension(tile):
    output, kernel, data = winograd_matrices.matrices_of_tile(tile)
    x, weight = np.random.RandomState(0).randn(tile + 2), np.array([0.3, -1.2, 0.7])
    expected = [sum(weight[k] * x[i + k] for k in range(3)) for i in range(tile)]
    np.testing.assert_allclose(output @ ((kernel @ weight) * (data @ x)), expected, atol=1e-12)


def test_any_memory_format(counted):
    x, weight, bias = (one.detach() for one in inputs_of(6, 8, 12, 14, 14))
    grids = torch.stack([x, x * 2], 1).permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    for one in (x, x.to(memory_format=torch.channels_last), grids[:, 1], x.expand(6, 8, 14, 14), x[:1].expand_as(x)):
        torch.testing.assert_close(conv3x3(one, weight, bias), direct(one, weight, bias), rtol=1e-4, atol=2e-5)
    assert len(counted) == 5


def test_results_and_gradients_have_the_memory_format_of_the_input(counted):
    """mmcv's RoIAlign reads other formats wrong, and torch's convolutions are slow backward if the format changes."""
    x, weight, bias = inputs_of(2, 8, 12, 40, 53)
    channels_last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    for one, memory_format in ((x, torch.contiguous_format), (channels_last, torch.channels_last)):
        out = conv3x3(one, weight, bias)
        gradient = torch.autograd.grad(out.square().sum(), one)[0]
        assert out.is_contiguous(memory_format=memory_format) and gradient.is_contiguous(memory_format=memory_format)
        with torch.no_grad():
            assert conv3x3(one, weight, bias).is_contiguous(memory_format=memory_format)
    assert len(counted) == 4  # a wide map without a gradient is torch's


@pytest.mark.parametrize('cut', [lambda x: x[..., 2:42, 1:50], lambda x: torch.cat([x, x], 1)[:, :8]])
def test_results_of_parts_of_maps_are_contiguous_as_those_of_torch(counted, cut):
    x, weight, bias = (one.detach() for one in inputs_of(2, 8, 12, 45, 53))
    x = cut(x).requires_grad_()
    assert not x.is_contiguous()
    out = conv3x3(x, weight, bias)
    assert len(counted) == 1 and out.is_contiguous() and direct(x, weight, bias).is_contiguous()
    torch.testing.assert_close(out, direct(x, weight, bias), rtol=1e-4, atol=2e-5)


def test_relu_in_place_and_frozen_inputs(counted):
    x, weight, bias = inputs_of(4, 8, 8, 7, 7)
    changed = torch.relu_(conv3x3(x.to(memory_format=torch.channels_last), weight, bias))
    assert changed.grad_fn.name() == 'ReluBackward0'  # a view has CopySlices, which copies the gradients twice
    assert len(counted) == 1
    results = []
    for function in (conv3x3, direct):
        out = torch.relu_(function(x, weight, bias))
        results.append([out, *torch.autograd.grad(out.square().sum(), (x, weight, bias))])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    del counted[:]
    conv3x3(x.detach(), weight, bias).sum().backward()
    assert len(counted) == 1 and x.grad is None  # no convolution for an input without a gradient


@pytest.mark.parametrize('trained', [one for one in itertools.product([0, 1], repeat=3) if any(one)], ids=str)
def test_gradients_of_some_inputs(counted, monkeypatch, trained):
    found, gradients = [], winograd._gradients
    monkeypatch.setattr(winograd, '_gradients', lambda *args: found.append(gradients(*args)) or found[-1])
    inputs = inputs_of(4, 8, 6, 14, 14)
    for one, is_trained in zip(inputs, trained):
        one.requires_grad_(bool(is_trained))
    wanted = [one for one in inputs if one.requires_grad]
    weight = torch.randn(4, 6, 14, 14)
    ours, theirs = (torch.autograd.grad((f(*inputs) * weight).sum(), wanted) for f in (conv3x3, direct))
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * other.abs().max().item())
    assert [one is not None for one in found[0]] == [bool(one) for one in trained[:2]]


def test_transposed_weights(counted):
    x, weight = torch.randn(3, 8, 14, 14), torch.randn(8, 8, 3, 3).transpose(0, 1)
    torch.testing.assert_close(conv3x3(x, weight), direct(x, weight), rtol=0, atol=1e-3)
    assert counted


def test_matrices_of_inference_mode_serve_in_training(counted):
    winograd._cached_transforms.cache_clear()
    x, weight, bias = inputs_of(2, 3, 4, 7, 7)
    with torch.inference_mode():
        expected = conv3x3(x, weight, bias)
    out = conv3x3(x, weight, bias)
    out.sum().backward()
    assert torch.equal(out, expected) and x.grad.abs().sum() > 0


def test_what_is_no_plain_tensor_leaves_no_trace(counted):
    """Fake tensors and another default device neither fail nor spoil later results."""
    x, weight, bias = (one.detach() for one in inputs_of(3, 4, 5, 7, 7))
    winograd._cached_transforms.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert conv3x3(*(mode.from_tensor(one) for one in (x, weight, bias))).shape == (3, 5, 7, 7)
    assert not counted
    with torch.device('meta'):
        conv3x3(x, weight, bias)
    for _ in range(2):
        torch.testing.assert_close(conv3x3(x, weight, bias), direct(x, weight, bias), rtol=1e-4, atol=2e-5)
    assert len(counted) == 3


def test_function_transforms_are_torchs(counted):
    x, weight, bias = (one.detach() for one in inputs_of(3, 4, 5, 7, 7))
    weights = torch.stack([weight, 2 * weight])
    expected = torch.stack([direct(x, one, bias) for one in weights])
    torch.testing.assert_close(torch.func.vmap(lambda one: conv3x3(x, one, bias))(weights), expected)
    gradient = torch.func.grad(lambda one: conv3x3(x, one, bias).sum())(weight)
    expected = torch.autograd.grad(direct(x, weight.requires_grad_(), bias).sum(), weight)[0]
    torch.testing.assert_close(gradient, expected)
    assert not counted


def test_products_in_bfloat16_are_not_for_convolutions(counted):
    x, weight, bias = inputs_of(3, 4, 5, 7, 7)
    expected = direct(x, weight, bias)
    torch.set_float32_matmul_precision('medium')
    try:
        torch.testing.assert_close(conv3x3(x, weight, bias), expected, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_float32_matmul_precision('highest')
    assert not counted


def test_backward_within_autocast(counted):
    x, weight, bias = inputs_of(3, 4, 5, 7, 7)
    outs = conv3x3(x, weight, bias), direct(x, weight, bias)
    with torch.autocast('cpu', torch.bfloat16):
        ours, theirs = (torch.autograd.grad(out.sum(), (x, weight, bias)) for out in outs)
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_second_derivatives_need_direct_convolutions(counted):
    x, weight, bias = inputs_of(3, 4, 5, 7, 7)

    def second():
        first = torch.autograd.grad(conv3x3(x, weight, bias).square().sum(), x, create_graph=True)
        x.grad = None
        first[0].square().sum().backward()
        return x.grad

    with direct_convolutions():
        assert second().abs().sum() > 0
    with pytest.raises(RuntimeError, match='once_differentiable'):
        second()


@pytest.mark.parametrize(
    'weight, bias', [((4, 7, 3, 3), (4,)), ((4, 8, 3, 3), (3,)), ((4, 8, 3, 3), (1,)), ((4, 8, 5, 5), (4,))], ids=str
)
def test_what_does_not_fit_gets_the_answer_of_torch(counted, weight, bias):
    inputs = torch.randn(3, 8, 7, 7), torch.randn(weight), torch.randn(bias)
    results = []
    for function in (conv3x3, direct):
        try:
            results.append(function(*inputs).shape)
        except RuntimeError as error:
            results.append(str(error))
    assert results[0] == results[1] and not counted
    with pytest.raises(RuntimeError):
        conv3x3(inputs[0], torch.randn(4, 8, 3, 3), torch.randn(4).double())


def test_others_are_torchs(counted, monkeypatch):
    x, weight, bias = (one.detach() for one in inputs_of(3, 4, 4, 7, 7))
    assert torch.equal(conv3x3(x.double(), weight.double()), direct(x.double(), weight.double()))
    with torch.autocast('cpu', torch.bfloat16):
        assert conv3x3(x, weight, bias).dtype == torch.bfloat16
    assert 'aten::_convolution' in str(torch.jit.trace(conv3x3, (x, weight, bias), check_trace=False).graph)
    compiled = torch.compile(conv3x3, backend='eager', fullgraph=True)
    assert torch.equal(compiled(x, weight, bias), direct(x, weight, bias))
    with direct_convolutions():
        assert torch.equal(conv3x3(x, weight, bias), direct(x, weight, bias))
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 3 * 49 + 1)
    assert torch.equal(conv3x3(x, weight, bias), direct(x, weight, bias))
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 0)
    monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', 17)
    assert torch.equal(conv3x3(x, weight, bias), direct(x, weight, bias))
    assert not counted
    assert winograd.PREFERS_WINOGRAD


@pytest.mark.parametrize('smallest, is_ours', [(32, True), (34, False)])
def test_training_needs_half_the_channels(counted, monkeypatch, smallest, is_ours):
    monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', smallest)
    x, weight, bias = inputs_of(3, 4, 4, 7, 7)
    conv3x3(x, weight, bias)
    assert bool(counted) == is_ours
    with torch.no_grad():
        conv3x3(x, weight, bias)
    assert len(counted) == is_ours


@pytest.mark.parametrize('threads, is_ours', [(2, True), (3, False)])
def test_more_threads_need_more_pixels(counted, monkeypatch, threads, is_ours):
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 3 * 49 // 2)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    x, weight, bias = (one.detach() for one in inputs_of(3, 4, 4, 7, 7))
    conv3x3(x, weight, bias)
    assert bool(counted) == is_ours


@pytest.mark.parametrize('height, width', [(14, 14), (120, 160), (200, 336), (336, 20)])
def test_blocks_cover_all_rows_of_all_grids_once(height, width):
    by = winograd._transforms(height, width, winograd.TILES)
    per_row = by.size**2 * by.columns * by.strips * 256
    for count in (0, 1, 2, 13, 1001):
        blocks = list(winograd._blocks(torch.zeros(count, 256, 1, 1), 256, by))
        covered = [
            (grid, block.first_row + row)
            for block in blocks
            for grid in range(block.grids.start, block.grids.stop)
            for row in range(block.num_rows)
        ]
        assert covered == [(grid, row) for grid in range(count) for row in range(by.rows)]
        for block in blocks:
            num_rows = block.num_rows * (block.grids.stop - block.grids.start)
            assert per_row * num_rows <= winograd.BLOCK or num_rows == 1


def test_strips_waste_few_columns():
    for width in range(winograd.WIDEST + 1, 400):
        by = winograd._transforms(20, width, winograd.TILES)
        assert width <= by.strips * by.width < width + 3 * by.tile and by.halo == 1
    narrow = winograd._transforms(20, winograd.WIDEST, winograd.TILES)
    assert (narrow.strips, narrow.width, narrow.halo) == (1, winograd.WIDEST, 0)


@pytest.mark.parametrize(
    'other',
    [
        dict(kernel_size=1),
        dict(kernel_size=3),
        dict(kernel_size=3, padding=1, stride=2),
        dict(kernel_size=3, padding=2, dilation=2),
        dict(kernel_size=3, padding=1, groups=2),
        dict(kernel_size=3, padding=1, padding_mode='reflect'),
        dict(kernel_size=3, padding='same'),
        dict(kernel_size=5, padding=2),
    ],
    ids=str,
)
def test_other_convolutions_are_torchs(counted, other):
    torch.manual_seed(0)
    ours = FastConv2d(4, 6, **other)
    theirs = nn.Conv2d(4, 6, **other)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 7, 7)
    assert torch.equal(ours(x), theirs(x))
    assert not counted


@pytest.mark.parametrize('norm_cfg', [None, dict(type='GN', num_groups=4)])
@pytest.mark.parametrize('head_type', ['mask', 'box'])
def test_heads(counted, head_type, norm_cfg):
    settings = dict(in_channels=8, conv_out_channels=8, num_classes=3, norm_cfg=norm_cfg)
    if head_type == 'mask':
        head, size, num_convs = FCFusionMaskHead(**settings), 14, 9
    else:
        head, size, num_convs = PANetShared4Conv1FCBBoxHead(fc_out_channels=16, **settings), 7, 7
    head.init_weights()
    x = torch.randn(5, 4, 8, size, size)
    other_head = copy.deepcopy(head)

    def train_step(head):
        out = head(x)
        torch.cat([one.flatten() for one in (out if head_type == 'box' else [out])]).square().sum().backward()
        return out

    out = train_step(head)
    assert len(counted) == 2 * num_convs - 4  # x of the first layers needs no gradient
    with direct_convolutions():
        expected = train_step(other_head)
    assert len(counted) == 2 * num_convs - 4
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    for (name, one), other in zip(head.named_parameters(), other_head.parameters()):
        assert other.grad.abs().sum() > 0, name
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4 * other.grad.abs().max().item())


@pytest.mark.parametrize('fusion', ['sum', 'concat'])
def test_neck(counted, fusion):
    neck = PANetNeck([6, 8, 8], 8, num_outs=5, add_extra_convs='on_output', fusion=fusion)
    neck.init_weights()
    assert sum(isinstance(module, FastConv2d) for module in neck.modules()) == 3 + 5 + 2 * (
        3 if fusion == 'concat' else 2
    )
    maps = [torch.randn(2, channels, 44 >> i, 36 >> i) for i, channels in enumerate((6, 8, 8))]
    results = []
    for convolutions in (nullcontext(), direct_convolutions()):
        inputs = [one.clone().requires_grad_() for one in maps]
        with convolutions:
            outs = neck(inputs)
            gradients = torch.autograd.grad(sum(out.square().sum() for out in outs), [*inputs, *neck.parameters()])
        results.append([*outs, *gradients])
    assert len(counted) == 2 * 5  # the convolutions of three P and of two N levels, and the gradients of their inputs
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize('training', [False, True])
def test_rois_of_mmcv_behind_the_neck(counted, training):
    """mmcv's RoIAlign takes maps in one memory format alone, and does not say so."""
    neck = PANetNeck([6, 8], 8, num_outs=2)
    neck.init_weights()
    extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=7, sampling_ratio=2), 8, [4, 8])
    maps = [torch.randn(2, 6, 44, 36), torch.randn(2, 8, 22, 18)]
    rois = torch.tensor([[0.0, 10, 5, 60, 70], [1.0, 3, 3, 140, 170], [1.0, 90, 20, 100, 100]])
    with torch.set_grad_enabled(training):
        pooled = extractor(neck(maps), rois)
        with direct_convolutions():
            expected = extractor(neck(maps), rois)
    assert len(counted) == (3 if training else 2)  # the finer map is wide
    torch.testing.assert_close(pooled, expected, rtol=1e-3, atol=1e-5)


def test_which_convolution_a_neck_has(monkeypatch):
    def count(**kwargs):
        neck = PANetNeck([8, 8], 8, num_outs=2, **kwargs)
        return sum(isinstance(module, FastConv2d) for module in neck.modules())

    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', True)
    assert count() == count(warm_start=True) == 2 + 2 + 2
    assert count(conv_cfg=dict(type='Conv2d')) == 0
    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', False)
    assert count() == 0


def test_which_convolution_a_head_has(monkeypatch):
    def count(**kwargs):
        return sum(isinstance(module, FastConv2d) for module in FCFusionMaskHead(**kwargs).modules())

    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', True)
    assert count() == 9
    assert count(conv_cfg=None) == 9
    assert count(conv_cfg=dict(type='Conv2d')) == 0
    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', False)
    assert count() == 0
    assert count(conv_cfg=dict(type='FastConv2d')) == 9
