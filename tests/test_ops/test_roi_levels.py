# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmpanet.ops import fpn_levels


@pytest.mark.parametrize('finest_scale', [28, 56])
@pytest.mark.parametrize('num_levels', [1, 3, 4])
def test_levels_are_mmdets(num_levels, finest_scale):
    corners = torch.rand(500, 2) * 300
    sizes = 2 ** (torch.rand(500, 2) * 10)
    rois = torch.cat([torch.zeros(500, 1), corners, corners + sizes], dim=1)
    extractor = SingleRoIExtractor(dict(type='RoIAlign', output_size=7), 8, [4, 8, 16, 32][:num_levels], finest_scale)
    mmdets = extractor.map_roi_levels(rois, num_levels)
    assert fpn_levels(rois, num_levels, finest_scale).equal(mmdets) and mmdets.unique().numel() == num_levels


def test_large_rois_in_half_precision():
    """An area of 300 x 300 is beyond float16."""
    rois = torch.tensor([[0.0, 0.0, 0.0, 300.0, 300.0], [0.0, 0.0, 0.0, 20.0, 20.0]])
    assert fpn_levels(rois.half(), 4).tolist() == fpn_levels(rois, 4).tolist() == [2, 0]
