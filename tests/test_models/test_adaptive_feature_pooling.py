# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import math

import pytest
import torch
from mmcv.ops import RoIAlign, roi_align
from pooling_reference import SCALES, STRIDES, maps, pixels_beside

from mmdet.registry import MODELS
from mmpanet.models import AdaptiveFeaturePooling
from mmpanet.ops import multi_level_roi_align, pixel_table
from mmpanet.ops.adaptive_sampling import adaptive_cost, adaptive_taps
from mmpanet.ops.pixel_table import Levels


def build(backend='auto', output_size=7, **roi_layer) -> AdaptiveFeaturePooling:
    roi_layer = {**dict(type='RoIAlign', output_size=output_size, sampling_ratio=2), **roi_layer}
    return MODELS.build(
        dict(
            type='AdaptiveFeaturePooling', roi_layer=roi_layer, out_channels=8, featmap_strides=STRIDES, backend=backend
        )
    )


def some_rois(num, height=96, width=144, batch=2, dtype=torch.float32):
    """RoIs of all sizes; some are partly or completely outside the image."""
    center = torch.rand(num, 2, dtype=dtype) * torch.tensor([width, height])
    size = torch.exp(torch.rand(num, 2, dtype=dtype) * 6)
    image = torch.randint(0, batch, (num, 1)).to(dtype)
    return torch.cat([image, center - size / 2, center + size / 2], dim=1)


DEGENERATE_ROIS = torch.tensor(
    [
        [0, 0.0, 0.0, 144.0, 96.0],  # the whole image
        [1, 20.0, 30.0, 20.0, 30.0],  # no size
        [0, 20.0, 30.0, 20.0, 60.0],  # no width
        [1, -50.0, -40.0, -10.0, -20.0],  # outside
        [0, 200.0, 150.0, 260.0, 190.0],  # outside
        [1, -30.0, -30.0, 500.0, 400.0],  # larger than the image
        [0, 143.0, 95.0, 144.0, 96.0],  # the last pixel
        [0, 0.0, 0.0, 1.0, 1.0],
        [1, -4.0, -4.0, 0.0, 0.0],
        [0, 10.0, 10.0, 94.0, 94.0],  # three pixels of the finest level in each of 7 bins
        [0, 1e6, 1e6, 1e6 + 10, 1e6 + 10],
    ]
)


def roi_align_loop(feats, rois, output_size, sampling_ratio, aligned):
    """RoIAlign by its definition, computed number by number."""

    h, w = output_size
    out = torch.zeros(len(rois), len(feats), feats[0].size(1), h, w, dtype=torch.float64)
    for n, (image, *corners) in enumerate(rois.tolist()):
        for level, (feat, scale) in enumerate(zip(feats, SCALES)):
            shift = 0.5 if aligned else 0.0
            x1, y1, x2, y2 = (corner * scale - shift for corner in corners)
            roi_w, roi_h = x2 - x1, y2 - y1
            if not aligned:
                roi_w, roi_h = max(roi_w, 1.0), max(roi_h, 1.0)
            rows, columns = (sampling_ratio or math.ceil(roi_h / h), sampling_ratio or math.ceil(roi_w / w))
            for i in range(h * rows):
                y = y1 + roi_h * (i + 0.5) / (h * rows)
                for j in range(w * columns):
                    x = x1 + roi_w * (j + 0.5) / (w * columns)
                    for row, row_weight in pixels_beside(y, feat.size(2)):
                        for column, weight in pixels_beside(x, feat.size(3)):
                            out[n, level, :, i // rows, j // columns] += (
                                row_weight * weight * feat[int(image), :, row, column] / (rows * columns)
                            )
    return out


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 2, 3])
def test_against_a_plain_loop_in_float64(sampling_ratio, aligned):
    feats = maps(40, 50, channels=3, dtype=torch.float64)
    rois = torch.cat([some_rois(6, 40, 50, dtype=torch.float64), DEGENERATE_ROIS.double()])
    out = multi_level_roi_align(feats, rois, (3, 2), SCALES, sampling_ratio, aligned)
    expected = roi_align_loop(feats, rois, (3, 2), sampling_ratio, aligned)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    assert out.abs().sum() > 0


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('output_size', [7, 14, (5, 9)])
@pytest.mark.parametrize('height,width', [(96, 144), (33, 61), (4, 200)])
@pytest.mark.gpu
def test_backends_agree_with_mmcv(height, width, output_size, aligned, sampling_ratio, device):
    """Forward and backward against mmcv's operator, for each level."""
    feats = [feat.to(device).requires_grad_() for feat in maps(height, width)]
    rois = torch.cat([some_rois(40, height, width), DEGENERATE_ROIS[:-1]]).to(device)
    h, w = output_size if isinstance(output_size, tuple) else (output_size,) * 2
    expected = torch.stack(
        [roi_align(feat, rois, (h, w), scale, sampling_ratio, 'avg', aligned) for feat, scale in zip(feats, SCALES)], 1
    )
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, feats, grad)
    for backend in ('roi_align', 'embedding_bag'):
        pooling = build(backend, output_size, aligned=aligned, sampling_ratio=sampling_ratio)
        out = pooling(feats, rois)
        assert out.shape == (len(rois), 4, 8, h, w)
        # CUDA contracts products and sums, so its positions are others.
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-4 if device.type == 'cuda' else 1e-5)
        for got, reference in zip(torch.autograd.grad(out, feats, grad), expected_grads):
            torch.testing.assert_close(got, reference, rtol=1e-4, atol=1e-4 * len(rois) ** 0.5)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_gradients_in_double_precision(sampling_ratio):
    feats = maps(24, 24, batch=1, channels=2, dtype=torch.float64)[:2]
    feats = [feat.requires_grad_() for feat in feats]
    rois = some_rois(3, 24, 24, batch=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *feats: multi_level_roi_align(feats, rois, (2, 2), SCALES[:2], sampling_ratio), feats
    )


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
@pytest.mark.gpu
def test_channels_last_maps(backend, sampling_ratio, device):
    feats, rois = [feat.to(device) for feat in maps()], some_rois(20).to(device)
    pooling = build(backend, sampling_ratio=sampling_ratio)
    expected = pooling(feats, rois)
    feats = [feat.to(memory_format=torch.channels_last) for feat in feats]
    torch.testing.assert_close(pooling(feats, rois), expected)


@pytest.mark.parametrize(
    'sampling_ratio', [pytest.param(0, id='adaptive'), pytest.param(2, id='fixed', marks=pytest.mark.gpu)]
)
def test_deterministic(sampling_ratio, device):
    """The weights of adaptive sampling are sums in an order that only the CPU keeps."""
    feats, rois = [feat.to(device) for feat in maps()], some_rois(200).to(device)
    results = []
    torch.set_num_threads(4)
    try:
        for _ in range(3):
            leaves = [feat.clone().requires_grad_() for feat in feats]
            out = build('embedding_bag', sampling_ratio=sampling_ratio)(leaves, rois)
            out.square().sum().backward()
            results.append([out, *(leaf.grad for leaf in leaves)])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for again in results[1:] for a, b in zip(results[0], again))


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('max_taps', [3 * 4 * 49 * 16, 1])
@pytest.mark.parametrize('own_level_first', [False, True])
def test_chunks_give_the_same(max_taps, sampling_ratio, own_level_first, monkeypatch):
    feats, rois = maps(dtype=torch.float64), some_rois(50)
    pooling = build('embedding_bag', sampling_ratio=sampling_ratio)
    pooling.own_level_first = own_level_first

    def pool(feats):
        return pooling(feats, rois)

    def gradients():
        leaves = [feat.clone().requires_grad_() for feat in feats]
        return torch.autograd.grad(pool(leaves).square().sum(), leaves)

    expected, expected_grads = pool(feats), gradients()
    monkeypatch.setattr('mmpanet.ops.pixel_table.MAX_TAPS', max_taps)
    assert torch.equal(pool(feats), expected)
    for grad, expected_grad in zip(gradients(), expected_grads):
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
@pytest.mark.gpu
def test_no_rois(backend, sampling_ratio, device):
    feats = [feat.to(device).requires_grad_() for feat in maps()]
    out = build(backend, sampling_ratio=sampling_ratio)(feats, torch.zeros(0, 5, device=device))
    assert out.shape == (0, 4, 8, 7, 7)
    out.sum().backward()
    assert all((feat.grad == 0).all() for feat in feats)


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.gpu
def test_half_precision(dtype, backend, sampling_ratio, device):
    """Only the values are rounded. The coordinates stay in float32."""
    feats, rois = [feat.to(device) for feat in maps(800, 1344, batch=1)], some_rois(50, 800, 1344, batch=1).to(device)
    expected = build('embedding_bag', sampling_ratio=sampling_ratio)([f.to(dtype).float() for f in feats], rois)
    out = build(backend, sampling_ratio=sampling_ratio)([feat.to(dtype) for feat in feats], rois)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
@pytest.mark.gpu
def test_rois_that_are_columns_of_a_larger_table(backend, device):
    feats, rois = [feat.to(device) for feat in maps()], some_rois(20).to(device)
    with_scores = torch.cat([rois, torch.rand(20, 1, device=device)], dim=1)
    torch.testing.assert_close(build(backend)(feats, with_scores[:, :5]), build(backend)(feats, rois), rtol=0, atol=0)


def test_a_roi_layer_with_a_forward_of_its_own_is_called():
    class Doubled(RoIAlign):
        def forward(self, feat, rois):
            return 2 * super().forward(feat, rois)

    feats, rois = maps(), some_rois(20)
    torch.testing.assert_close(build(type=Doubled)(feats, rois), 2 * build('roi_align')(feats, rois))
    with pytest.raises(ValueError, match='embedding_bag'):
        build('embedding_bag', type=Doubled)


def test_rois_are_scaled_about_their_centers():
    feats = maps()
    rois = torch.tensor([[0, 40.0, 30.0, 60.0, 50.0]])
    larger = torch.tensor([[0, 30.0, 20.0, 70.0, 60.0]])
    torch.testing.assert_close(build()(feats, rois, 2.0), build()(feats, larger))


def test_auto_takes_what_the_roi_layer_allows():
    """Max pooling is no sum of pixels."""
    feats, rois, maximum = maps(), some_rois(20), dict(pool_mode='max')
    torch.testing.assert_close(
        build('auto', **maximum)(feats, rois), build('roi_align', **maximum)(feats, rois), rtol=0, atol=0
    )
    with pytest.raises(ValueError, match='embedding_bag.*pool_mode'):
        build('embedding_bag', **maximum)


def test_chunks_of_rois_with_different_costs(monkeypatch):
    monkeypatch.setattr(pixel_table, 'MAX_TAPS', 8)
    for costs, ends in (([3, 4, 1, 9, 2], [3, 4, 5]), ([9, 9], [1, 2]), ([8], [1]), ([0, 0, 8], [3])):
        chunks = list(pixel_table._chunks(torch.tensor(costs)))
        assert [chunk.start for chunk in chunks] == [0, *ends[:-1]] and [chunk.stop for chunk in chunks] == ends
    assert len(list(pixel_table._chunks(torch.zeros(0, dtype=torch.long)))) == 1


@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_a_chunk_has_a_limit(sampling_ratio, monkeypatch):
    """No call gets more taps than the limit, unless it has a single RoI."""
    limit, calls, embedding_bag = 4 * 49 * 16 * 3, [], torch.nn.functional.embedding_bag

    def counted(indices, table, offsets=None, **kwargs):
        bags = len(indices) if offsets is None else len(offsets)
        calls.append((indices.numel(), bags // (4 * 49)))
        return embedding_bag(indices, table, offsets, **kwargs)

    monkeypatch.setattr(pixel_table, 'MAX_TAPS', limit)
    monkeypatch.setattr(torch.nn.functional, 'embedding_bag', counted)
    build('embedding_bag', sampling_ratio=sampling_ratio)(maps(), some_rois(50))
    assert len(calls) > 5 and sum(rois for _, rois in calls) == 50
    assert all(taps <= limit or rois == 1 for taps, rois in calls)
    assert max(rois for _, rois in calls) > 1


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('corner', [1, 2, 3, 4])
@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan])
def test_a_roi_that_is_not_finite(value, corner, sampling_ratio):
    """It has no size that could choose a number of samples. The others are as without it."""
    feats, pooling = maps(), build('embedding_bag', sampling_ratio=sampling_ratio)
    rois = some_rois(4)
    expected = pooling(feats, rois)
    rois[2, corner] = value
    out = pooling(feats, rois)
    assert torch.equal(out[[0, 1, 3]], expected[[0, 1, 3]])
    assert not out[2].isfinite().all() or (out[2] == 0).all()


def test_adaptive_sampling_of_a_box_that_ends_before_it_begins():
    """It has no samples, as in mmcv's operator for CUDA. The one for CPUs refuses it."""
    rois = torch.tensor([[0, 100.0, 60.0, 40.0, 20.0], [0, 40.0, 20.0, 30.0, 60.0], [1, 40.0, 20.0, 100.0, 60.0]])
    out = build('embedding_bag', sampling_ratio=0)(maps(), rois)
    assert (out[:2] == 0).all() and (out[2] != 0).any()


@pytest.mark.parametrize('aligned', [True, False])
def test_adaptive_sampling_of_maps_with_one_pixel(aligned):
    feats = [torch.randn(2, 8, *size) for size in ((1, 1), (1, 9), (9, 1), (2, 1))]
    rois = torch.cat([some_rois(40, 30, 40), DEGENERATE_ROIS])
    out = multi_level_roi_align(feats, rois, (7, 7), SCALES, 0, aligned)
    for level, (feat, scale) in enumerate(zip(feats, SCALES)):
        expected = roi_align(feat, rois, (7, 7), scale, 0, 'avg', aligned)
        torch.testing.assert_close(out[:, level], expected, rtol=0, atol=1e-5)


def test_as_many_samples_as_mmcv_in_double_precision():
    """mmcv rounds the size of a bin to float32 before it rounds it up."""
    feats = maps(128, 128, dtype=torch.float64)
    rois = torch.tensor([[0, 0, 0, 56 + 1e-9, 56 + 1e-9]], dtype=torch.float64)
    expected = torch.stack([roi_align(feat, rois, (7, 7), scale, 0) for feat, scale in zip(feats, SCALES)], 1)
    torch.testing.assert_close(build('embedding_bag', sampling_ratio=0)(feats, rois), expected)


def test_adaptive_sampling_of_a_roi_that_no_image_has():
    rois = torch.cat([some_rois(2), torch.tensor([[0, 0.0, 0.0, 1e12, 40.0]])])
    with pytest.raises(ValueError, match=r'rois\[2\]=.*999999995904.* has too many pixels for sampling_ratio=0'):
        build('embedding_bag', sampling_ratio=0)(maps(), rois)
    rois = rois.double()
    rois[2, 3] = 1e41  # more than a float32 holds
    with pytest.raises(ValueError, match=r'rois\[2\]=.*1e\+41.* has too many pixels for sampling_ratio=0'):
        build('embedding_bag', sampling_ratio=0)(maps(dtype=torch.float64), rois)


def test_adaptive_sampling_reads_each_pixel_once():
    """A bin that covers many pixels has far fewer taps than mmcv reads: four for each sample."""
    feats = maps(640, 640, batch=1)
    rois = torch.tensor([[0, 3.0, 5.0, 600.0, 610.0], [0, 50.0, 60.0, 90.0, 400.0]])
    levels = Levels([feat.shape for feat in feats], SCALES, rois, None)
    indices, weights, begin = adaptive_taps(rois, levels, (7, 7), True)
    bags = [bag.tolist() for bag in indices.tensor_split(begin[1:].long())]
    assert len(bags) == 2 * 4 * 49 and all(len(set(bag)) == len(bag) for bag in bags)
    samples = [[(22, 22), (11, 11), (6, 6), (3, 3)], [(13, 2), (7, 1), (4, 1), (2, 1)]]  # in y and x of each level
    taps = [(y + 1) * (x + 1) for of_roi in samples for y, x in of_roi]
    assert [len(bag) for bag in bags] == [count for count in taps for _ in range(49)]
    cost = [sum(49 * (y + 1) * (x + 1) + 7 * (y + x) for y, x in of_roi) for of_roi in samples]
    assert adaptive_cost(rois, levels, (7, 7), True).tolist() == cost
    sums = torch.stack([bag.sum() for bag in weights.tensor_split(begin[1:].long())])
    torch.testing.assert_close(sums, torch.ones(2 * 4 * 49))


def test_bad_arguments():
    with pytest.raises(ValueError, match="backend='cuda'.*'auto'"):
        build('cuda')
    with pytest.raises(ValueError, match='names 4 levels, but 3'):
        build()(maps()[:3], some_rois(2))


@pytest.mark.parametrize('levels', [None, torch.zeros(5, dtype=torch.long, device='meta')])
def test_no_value_is_read_on_the_host(levels):
    """The meta device has no values, so code that reads a value on the host would fail."""
    feats = [feat.to('meta') for feat in maps()]
    out = multi_level_roi_align(feats, some_rois(5).to('meta'), (7, 7), SCALES, 2, levels=levels)
    assert out.shape == (5, 4 if levels is None else 1, 8, 7, 7)
    with pytest.raises((NotImplementedError, RuntimeError)):
        feats[0].sum().item()  # this is how such code fails


@pytest.mark.parametrize('kind', ['AdaptiveFeaturePooling', 'FastSingleRoIExtractor'])
def test_auto_needs_no_operator_of_mmcv_on_other_devices(kind, monkeypatch):
    """mmcv has RoIAlign for few devices. The meta device, for which it has none, stands for all others."""
    pooling = MODELS.build(
        dict(
            type=kind,
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
            out_channels=8,
            featmap_strides=STRIDES,
        )
    )
    feats = [feat.to('meta').requires_grad_() for feat in maps()]
    rois = some_rois(5).to('meta')
    out = pooling(feats, rois)
    assert out.device.type == 'meta' and out.shape[0] == 5 and out.shape[-3:] == (8, 7, 7)
    if torch._C._dispatch_has_kernel_for_dispatch_key('aten::_embedding_bag_dense_backward', 'Meta'):
        out.sum().backward()
        assert [feat.grad.shape for feat in feats] == [feat.shape for feat in feats]
    pooling.backend = 'roi_align'
    with pytest.raises((NotImplementedError, RuntimeError)):
        pooling(feats, rois)
