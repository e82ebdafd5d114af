# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import math

import pytest
import torch
from mmcv.ops import roi_align_rotated
from pooling_reference import SCALES, STRIDES, maps, pixels_beside

from mmdet.registry import MODELS
from mmpanet.models import RotatedAdaptiveFeaturePooling
from mmpanet.ops import multi_level_roi_align, multi_level_roi_align_rotated
from mmpanet.utils.errors import ConfigError


def build(backend='auto', roi_layer=None, **kwargs) -> RotatedAdaptiveFeaturePooling:
    roi_layer = roi_layer or dict(type='RoIAlignRotated', out_size=7, sample_num=2, clockwise=True)
    return MODELS.build(
        dict(
            type='RotatedAdaptiveFeaturePooling',
            roi_layer=roi_layer,
            out_channels=8,
            featmap_strides=STRIDES,
            backend=backend,
            **kwargs,
        )
    )


def some_rois(num, height=96, width=144, batch=2, dtype=torch.float32):
    """RoIs of all sizes and angles; some are partly or completely outside the image."""
    center = torch.rand(num, 2, dtype=dtype) * torch.tensor([width * 1.2, height * 1.2], dtype=dtype) - 10
    size = torch.exp(torch.rand(num, 2, dtype=dtype) * 6)
    angle = (torch.rand(num, 1, dtype=dtype) - 0.5) * 7
    image = torch.randint(0, batch, (num, 1)).to(dtype)
    return torch.cat([image, center, size, angle], dim=1)


# The angles keep samples off the line at which mmcv stops to read the map. There a rounding decides.
DEGENERATE_ROIS = torch.tensor(
    [
        [0, 72.0, 48.0, 144.0, 96.0, 0.0],  # the whole image
        [1, 20.3, 30.2, 0.0, 0.0, 0.3],  # no size
        [0, 20.3, 30.2, 0.0, 60.0, 0.3],  # no width
        [1, -50.0, -40.0, 20.0, 10.0, 0.3],  # outside
        [0, 230.0, 170.0, 30.0, 60.0, -0.3],  # outside
        [1, 70.0, 50.0, 500.0, 400.0, 0.1],  # larger than the image
        [0, 143.0, 95.0, 3.0, 2.0, 0.7],  # the last pixel
        [0, 60.0, 50.0, 40.0, 20.0, 0.5 * math.pi],
        [0, 60.0, 50.0, 40.0, 20.0, -3 * math.pi],
    ]
)


def roi_align_rotated_loop(feats, rois, output_size, sampling_ratio, aligned, clockwise):
    """RoIAlign of rotated boxes by its definition, computed number by number."""

    h, w = output_size
    out = torch.zeros(len(rois), len(feats), feats[0].size(1), h, w, dtype=torch.float64)
    for n, (image, x, y, width, height, angle) in enumerate(rois.tolist()):
        # An image's y axis points down, so a turn by a positive angle from x to y looks clockwise.
        angle = angle if clockwise else -angle
        for level, (feat, scale) in enumerate(zip(feats, SCALES)):
            shift = 0.5 if aligned else 0.0
            roi_w, roi_h = width * scale, height * scale
            if not aligned:
                roi_w, roi_h = max(roi_w, 1.0), max(roi_h, 1.0)
            for i in range(h * sampling_ratio):
                for j in range(w * sampling_ratio):
                    dx = roi_w * ((j + 0.5) / (w * sampling_ratio) - 0.5)
                    dy = roi_h * ((i + 0.5) / (h * sampling_ratio) - 0.5)
                    column = x * scale - shift + dx * math.cos(angle) - dy * math.sin(angle)
                    row = y * scale - shift + dx * math.sin(angle) + dy * math.cos(angle)
                    for pixel_row, row_weight in pixels_beside(row, feat.size(2)):
                        for pixel_column, weight in pixels_beside(column, feat.size(3)):
                            out[n, level, :, i // sampling_ratio, j // sampling_ratio] += (
                                row_weight * weight * feat[int(image), :, pixel_row, pixel_column]
                            )
    return out / sampling_ratio**2


@pytest.mark.parametrize('clockwise', [True, False])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [1, 2, 3])
def test_against_a_plain_loop_in_float64(sampling_ratio, aligned, clockwise):
    feats = maps(40, 50, channels=3, dtype=torch.float64)
    rois = torch.cat([some_rois(6, 40, 50, dtype=torch.float64), DEGENERATE_ROIS.double()])
    out = multi_level_roi_align_rotated(feats, rois, (3, 2), SCALES, sampling_ratio, aligned, clockwise)
    expected = roi_align_rotated_loop(feats, rois, (3, 2), sampling_ratio, aligned, clockwise)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)
    assert out.abs().sum() > 0
    # With a gradient, taps of the same pixels are merged.
    merged = multi_level_roi_align_rotated(
        [feat.requires_grad_() for feat in feats], rois, (3, 2), SCALES, sampling_ratio, aligned, clockwise
    )
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize('clockwise', [True, False])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('output_size', [7, (5, 9)])
@pytest.mark.parametrize('height,width', [(96, 144), (33, 61), (4, 200)])
def test_backends_agree_with_mmcv(height, width, output_size, aligned, clockwise):
    """Forward and backward against mmcv's operator, for each level."""
    feats = [feat.requires_grad_() for feat in maps(height, width)]
    rois = torch.cat([some_rois(40, height, width), DEGENERATE_ROIS])
    size = output_size if isinstance(output_size, tuple) else (output_size,) * 2
    expected = torch.stack(
        [roi_align_rotated(feat, rois, size, scale, 2, aligned, clockwise) for feat, scale in zip(feats, SCALES)], 1
    )
    grad = torch.randn_like(expected)
    expected_grads = torch.autograd.grad(expected, feats, grad)
    roi_layer = dict(
        type='RoIAlignRotated', output_size=output_size, sampling_ratio=2, aligned=aligned, clockwise=clockwise
    )
    for backend in ('roi_align', 'embedding_bag'):
        out = build(backend, roi_layer)(feats, rois)
        assert out.shape == (len(rois), 4, 8, *size)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)
        for got, reference in zip(torch.autograd.grad(out, feats, grad), expected_grads):
            torch.testing.assert_close(got, reference, rtol=1e-4, atol=1e-4)


def test_without_rotation_it_is_roi_align():
    feats, rois = maps(), some_rois(30)
    rois[:, 5] = 0
    corners = torch.cat([rois[:, :1], rois[:, 1:3] - rois[:, 3:5] / 2, rois[:, 1:3] + rois[:, 3:5] / 2], dim=1)
    torch.testing.assert_close(
        multi_level_roi_align_rotated(feats, rois, (7, 7), SCALES, 2),
        multi_level_roi_align(feats, corners, (7, 7), SCALES, 2),
        rtol=0,
        atol=1e-4,
    )


def test_gradients_in_double_precision():
    feats = [feat.requires_grad_() for feat in maps(24, 24, batch=1, channels=2, dtype=torch.float64)[:2]]
    rois = some_rois(3, 24, 24, batch=1, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda *feats: multi_level_roi_align_rotated(feats, rois, (2, 2), SCALES[:2], 2), feats
    )


def test_chunks_give_the_same(monkeypatch):
    feats, rois = maps(), some_rois(50)
    expected = build('embedding_bag')(feats, rois)
    leaves = [feat.clone().requires_grad_() for feat in feats]
    expected_grads = torch.autograd.grad(build('embedding_bag')(leaves, rois).square().sum(), leaves)
    monkeypatch.setattr('mmpanet.ops.pixel_table.MAX_TAPS', 3 * 4 * 49 * 16)
    assert torch.equal(build('embedding_bag')(feats, rois), expected)
    grads = torch.autograd.grad(build('embedding_bag')(leaves, rois).square().sum(), leaves)
    for grad, expected_grad in zip(grads, expected_grads):
        torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
def test_no_rois(backend):
    feats = [feat.requires_grad_() for feat in maps()]
    out = build(backend)(feats, torch.zeros(0, 6))
    assert out.shape == (0, 4, 8, 7, 7)
    out.sum().backward()
    assert all((feat.grad == 0).all() for feat in feats)


@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
def test_channels_last_maps(backend):
    feats, rois = maps(), some_rois(20)
    expected = build(backend)(feats, rois)
    feats = [feat.to(memory_format=torch.channels_last) for feat in feats]
    torch.testing.assert_close(build(backend)(feats, rois), expected)


def test_both_names_of_the_arguments(recwarn):
    new = build(roi_layer=dict(type='RoIAlignRotated', output_size=7, sampling_ratio=2, clockwise=True))
    old = build()
    assert [str(layer) for layer in new.roi_layers] == [str(layer) for layer in old.roi_layers]
    assert not [warning for warning in recwarn if 'deprecated' in str(warning.message)]
    feats, rois = maps(), some_rois(10)
    assert torch.equal(new(feats, rois), old(feats, rois))


@pytest.mark.parametrize('backend', ['roi_align', 'embedding_bag'])
def test_own_level_first(backend):
    """The own level is the one of MMRotate's extractor: by the square root of width times height."""
    feats = maps()
    rois = torch.tensor([[0, 50.0, 40.0, 8.0, 8.0, 0.2], [1, 50.0, 40.0, 20.0, 1000.0, 0.9]])
    ordered = build(backend, own_level_first=True)
    assert ordered.level_order(rois).tolist() == [[0, 1, 2, 3], [1, 0, 2, 3]]
    out, plain = ordered(feats, rois), build(backend)(feats, rois)
    torch.testing.assert_close(out[1], plain[1][[1, 0, 2, 3]])


def test_rois_are_scaled_about_their_centers():
    feats = maps()
    rois = torch.tensor([[0, 40.0, 30.0, 20.0, 10.0, 0.4]])
    for factor, size in ((2.0, (40.0, 20.0)), ((3.0, 2.0), (40.0, 30.0))):  # two factors are height and width
        larger = torch.tensor([[0, 40.0, 30.0, *size, 0.4]])
        torch.testing.assert_close(build()(feats, rois, factor), build()(feats, larger))


def test_no_value_is_read_on_the_host():
    """The meta device has no values, so code that reads a value on the host would fail."""
    feats = [feat.to('meta') for feat in maps()]
    assert multi_level_roi_align_rotated(feats, some_rois(5).to('meta'), (7, 7), SCALES, 2).shape == (5, 4, 8, 7, 7)


def test_bad_arguments():
    with pytest.raises(ConfigError, match="roi_layer.type='RoIAlign' must be 'RoIAlignRotated'"):
        build(roi_layer=dict(type='RoIAlign', output_size=7))
    with pytest.raises(ConfigError, match="needs a roi_layer of type 'RoIAlignRotated' with sampling_ratio >= 1"):
        build('embedding_bag', dict(type='RoIAlignRotated', out_size=7, sample_num=0))
    with pytest.raises(ValueError, match=r'rois must be of shape \(N, 6\), not \(2, 5\)'):
        build()(maps(), torch.zeros(2, 5))
