# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Neck and heads under TorchScript, and the mask head under torch.export."""

import pytest
import torch

from mmdet.registry import MODELS

NORM = dict(type='GN', num_groups=4)
SIZES = [(32, 48), (16, 24), (8, 12), (4, 6)]


def build(kind):
    """A part, and a function that makes inputs of a count of RoIs or a factor of size."""
    if kind == 'neck':
        part = MODELS.build(
            dict(type='PANetNeck', in_channels=[8, 16, 24, 32], out_channels=16, num_outs=5, norm_cfg=NORM)
        )
        return part, lambda n: ([torch.rand(1, c, n * h, n * w) for c, (h, w) in zip((8, 16, 24, 32), SIZES)],)
    if kind == 'box':
        part = MODELS.build(
            dict(type='PANetShared2FCBBoxHead', in_channels=16, fc_out_channels=32, num_classes=3, norm_cfg=NORM)
        )
        return part, lambda n: (torch.randn(n, 4, 16, 7, 7),)
    part = MODELS.build(
        dict(type='FCFusionMaskHead', in_channels=16, conv_out_channels=16, num_classes=3, norm_cfg=NORM)
    )
    return part, lambda n: (torch.randn(n, 4, 16, 14, 14),)


def flat(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def assert_same(found, expected):
    for one, other in zip(flat(found), flat(expected)):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert len(flat(found)) == len(flat(expected))


@pytest.mark.skipif(not hasattr(getattr(torch, 'export', None), 'Dim'), reason='this torch has no torch.export.Dim')
def test_torch_export_of_the_mask_head_with_any_count():
    part, make = build('mask')
    part.eval()
    shapes = ({0: torch.export.Dim('rois', min=2, max=4096)},)
    exported = torch.export.export(part, make(2), dynamic_shapes=shapes).module()
    for count in (3, 7):
        inputs = make(count)
        assert_same(exported(*inputs), part(*inputs))


@pytest.mark.parametrize('kind', ['neck', 'box', 'mask'])
def test_traced_by_torchscript(kind):
    part, make = build(kind)
    part.eval()
    with torch.no_grad():
        traced = torch.jit.trace(part, make(2), check_trace=False, strict=False)
        for count in (3, 7):
            inputs = make(count)
            assert_same(traced(*inputs), part(*inputs))
