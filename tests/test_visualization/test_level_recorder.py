# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from mmpanet.models import AdaptiveFeaturePooling, PANetNeck, PANetShared2FCBBoxHead
from mmpanet.models.layers import LevelwiseFusion
from mmpanet.ops import fpn_levels
from mmpanet.visualization import (
    LevelDistribution,
    LevelRecorder,
    RoILevels,
    draw_distribution,
    draw_levels,
    gate_values,
    level_shares,
)
from mmpanet.visualization.drawing import _corners


class Identity(nn.Module):
    def forward(self, x):
        return x


def shares_in_plain_python(levels, fusion):
    """(N, L, F), element by element."""
    result = np.zeros(levels.shape[:2])
    for n, roi in enumerate(levels):
        for element in roi.T:
            if fusion == 'max':
                winners = [level for level, value in enumerate(element) if value == max(element)]
                if len(winners) < len(element):
                    for level in winners:
                        result[n, level] += 1 / len(winners)
            else:
                result[n] += abs(element)
        if result[n].sum():
            result[n] /= result[n].sum()
    return result


@pytest.mark.parametrize('fusion', ['max', 'sum'])
@pytest.mark.parametrize('fuse_first', [False, True])
def test_shares_against_plain_python(fusion, fuse_first):
    torch.manual_seed(0)
    grids = torch.randn(7, 3, 4, 2, 2).relu()  # half of them are 0, so there are ties
    grids[0] = 0
    module = LevelwiseFusion(lambda: nn.Sequential(nn.Conv2d(4, 5, 1), nn.ReLU()), 3, fusion, fuse_first=fuse_first)
    with torch.no_grad():
        levels = grids if fuse_first else torch.stack([layer(grids[:, i]) for i, layer in enumerate(module.levels)], 1)
    expected = shares_in_plain_python(levels.flatten(2).numpy(), fusion)
    shares = level_shares(module, grids)
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    assert torch.allclose(shares[1:].sum(1), torch.ones(6))


def test_where_no_level_wins_there_are_no_shares():
    module = LevelwiseFusion(Identity, 2)
    assert level_shares(module, torch.ones(3, 2, 1, 2, 2)).tolist() == [[0, 0]] * 3


def random_rois(count):
    corners = torch.rand(count, 2) * 300
    sizes = 2 ** (torch.rand(count, 2) * 10)
    return torch.cat([torch.zeros(count, 1), corners, corners + sizes], dim=1)


def test_distribution_is_the_mean_by_level_of_fpn():
    torch.manual_seed(0)
    rois = random_rois(60)
    rois[:, 3:] = torch.minimum(rois[:, 3:], rois[:, 1:3] + 200)  # none of them is assigned to the last level
    shares = torch.rand(60, 4)
    shares /= shares.sum(1, keepdim=True)
    shares[::7] = 0
    distribution = LevelDistribution([4, 8, 16, 32])
    for part in (slice(0, 25), slice(25, 60)):
        distribution.add(RoILevels(rois[part], shares[part]))
    result = distribution.as_dict()
    counted = shares.sum(1) > 0
    levels = fpn_levels(rois, 4)
    for level in range(4):
        chosen = shares[counted & (levels == level)]
        assert result['rois'][level] == len(chosen)
        if len(chosen):
            assert result['shares'][level] == pytest.approx(chosen.double().mean(0).tolist())
    assert result['shares'][3] is None
    assert result['all'] == pytest.approx(shares[counted].double().mean(0).tolist())
    picture = draw_distribution(dict(bbox_head=distribution))
    assert picture.dtype == np.uint8 and picture.std() > 5


def test_levels_of_rois_are_those_of_the_pooling():
    """A RoI of 100 x 100 pixels belongs to the finest level with a finest_scale of 56, and to the next one with 28."""
    rois, shares = torch.tensor([[0.0, 0.0, 0.0, 100.0, 100.0]]), torch.tensor([[0.25, 0.75]])
    for finest_scale, counts in ((56, [1, 0]), (28, [0, 1])):
        distribution = LevelDistribution([4, 8], finest_scale)
        distribution.add(RoILevels(rois, shares))
        assert distribution.counts.tolist() == counts


@pytest.mark.parametrize('own_level_first', [False, True])
def test_finest_scale_of_a_pooling_without_an_order_has_no_effect(own_level_first):
    model = nn.Module()
    model.neck = nn.Identity()
    model.roi_head = nn.ModuleDict(dict(bbox_head=PANetShared2FCBBoxHead(in_channels=8, fc_out_channels=8)))
    model.pooling = AdaptiveFeaturePooling(
        dict(type='RoIAlign', output_size=7, sampling_ratio=2), 8, [4, 8, 16, 32], 'auto', own_level_first, 28
    )
    assert LevelRecorder(model).finest_scale == (28 if own_level_first else 56)


def test_an_empty_distribution_can_be_drawn():
    distribution = LevelDistribution([4, 8])
    distribution.add(RoILevels(torch.zeros(0, 5), torch.zeros(0, 2)))
    assert distribution.as_dict() == dict(strides=[4, 8], rois=[0, 0], shares=[None, None], all=None)
    assert draw_distribution(dict(bbox_head=distribution)).ndim == 3


def pixels_of(picture, rgb):
    return int((np.abs(picture.astype(int) - rgb).sum(-1) < 30).sum())


def test_rois_are_drawn_in_the_color_of_their_level():
    """A large box is blue where the first level wins, orange where the third wins, and absent where none wins."""
    image = np.zeros((64, 96, 3), np.uint8)
    pyramid = [torch.rand(4, 24, 32), torch.rand(4, 12, 16), torch.rand(4, 6, 8)]
    rois = torch.tensor([[0, 10.0, 10.0, 110.0, 80.0]])
    for winner, shown in [(0, 'blue'), (2, 'orange'), (None, None)]:
        shares = torch.zeros(1, 3)
        if winner is not None:
            shares[0, winner] = 1
        seen = dict(bbox_head=RoILevels(rois, shares))
        # twice as large for the network, and padded
        picture = draw_levels(image, pyramid, (128, 192, 192, 256), seen, [4, 8, 16])
        above_the_legend = picture[:-100]
        assert (pixels_of(above_the_legend, (0, 114, 178)) > 100) == (shown == 'blue')
        assert (pixels_of(above_the_legend, (230, 159, 0)) > 100) == (shown == 'orange')


def test_rois_are_drawn_where_they_lie_and_maps_without_their_padding():
    """The network gets the image twice as large, and padded from 128 x 192 to 192 x 256."""
    size, seen = (128, 192, 192, 256), {}
    seen['bbox_head'] = RoILevels(torch.tensor([[0, 24.0, 16.0, 120.0, 64.0]]), torch.eye(3)[:1])
    level = torch.rand(4, 24, 32)
    picture = draw_levels(np.zeros((64, 96, 3), np.uint8), [level], size, seen, [8, 16, 32])
    blue, black = (np.abs(picture.astype(int) - rgb).sum(-1) < 30 for rgb in ((0, 114, 178), (0, 0, 0)))
    _, parts = cv2.connectedComponents((blue | black).astype(np.uint8))
    panel = parts == parts[blue][0]
    blue &= panel  # without the legend
    for axis, length, first, last in ((0, 128, 16, 64), (1, 192, 24, 120)):
        places, line = np.flatnonzero(panel.any(1 - axis)), np.flatnonzero(blue.any(1 - axis))
        shares = (line[[0, -1]] - places[0]) / np.ptp(places)
        np.testing.assert_allclose(shares, [first / length, last / length], atol=0.02)
    padded = level.clone()
    padded[:, 16:], padded[:, :, 24:] = 100, 100
    again = draw_levels(np.zeros((64, 96, 3), np.uint8), [padded], size, seen, [8, 16, 32])
    assert np.array_equal(picture, again)


def test_a_pyramid_may_have_any_number_of_levels():
    for count in (7, 10):
        seen = dict(bbox_head=RoILevels(torch.tensor([[0, 10.0, 10.0, 110.0, 80.0]]), torch.eye(count)[-1:]))
        strides = [2 << i for i in range(count)]
        picture = draw_levels(np.zeros((64, 96, 3), np.uint8), [torch.rand(4, 24, 32)], (128, 192) * 2, seen, strides)
        color = {7: (240, 228, 66), 10: (0, 114, 178)}[count]  # yellow is the 7th, and the 10th is the 1st again
        assert pixels_of(picture[:-100], color) > 50


def test_corners_of_rotated_rois_are_those_of_opencv():
    straight = torch.tensor([[0, 10.0, 20.0, 110.0, 80.0]])
    np.testing.assert_allclose(_corners(straight)[0], [[10, 20], [110, 20], [110, 80], [10, 80]])
    for angle in (0.0, 0.5, -1.2):
        rotated = torch.tensor([[0, 60.0, 50.0, 100.0, 60.0, angle]])
        found = _corners(rotated)[0].numpy()
        expected = cv2.boxPoints(((60, 50), (100, 60), np.degrees(angle)))
        assert all(np.abs(expected - corner).sum(axis=1).min() < 1e-3 for corner in found)
        assert np.linalg.norm(found[0] - found[1]) == pytest.approx(100, rel=1e-5)  # corners follow the outline
    seen = dict(bbox_head=RoILevels(rotated, torch.eye(3)[:1]))
    pyramid = [torch.rand(4, 24, 32), torch.rand(4, 12, 16), torch.rand(4, 6, 8)]
    picture = draw_levels(np.zeros((64, 96, 3), np.uint8), pyramid, (128, 192, 192, 256), seen, [4, 8, 16])
    assert pixels_of(picture[:-100], (0, 114, 178)) > 100


class GatedHead(nn.Module):
    """Pooling with the own level first, and a head whose gates are closed."""

    def __init__(self):
        super().__init__()
        self.neck = PANetNeck([4, 8, 16, 32], 8, 4, path_gate=True)
        self.pooling = AdaptiveFeaturePooling(
            dict(type='RoIAlign', output_size=7, sampling_ratio=2), 8, [4, 8, 16, 32], own_level_first=True
        )
        self.bbox_head = PANetShared2FCBBoxHead(
            in_channels=8, fc_out_channels=16, num_classes=2, level_fusion='sum', level_gate=True
        )

    def forward(self, feats, rois):
        return self.bbox_head(self.pooling(feats, rois))


def test_shares_of_a_gated_head_are_those_of_the_levels():
    """With closed gates all features come from the level that FPN would use, wherever it stands in the order."""
    model = GatedHead()
    sides = torch.tensor([20.0, 120.0, 240.0, 500.0])
    rois = torch.stack([torch.zeros(4), torch.zeros(4), torch.zeros(4), sides, sides], dim=1)
    with LevelRecorder(model) as recorder:
        model([torch.rand(1, 8, 128 >> i, 128 >> i) for i in range(4)], rois)
    assert fpn_levels(rois, 4).tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(recorder.take()['bbox_head'].shares, torch.eye(4))


def test_gates_are_reported_by_level_and_channel():
    model = GatedHead()
    with torch.no_grad():
        model.bbox_head.shared_fcs[0].level_gates[1, :8] = -0.5
    gates = gate_values(model)
    assert {name: values.shape for name, values in gates.items()} == {'neck': (3, 8), 'bbox_head.shared_fcs.0': (3, 16)}
    assert not gates['neck'].any()
    assert gates['bbox_head.shared_fcs.0'].tolist() == [[0] * 16, [-0.5] * 8 + [0] * 8, [0] * 16]
