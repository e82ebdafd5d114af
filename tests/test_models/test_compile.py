# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""torch.compile of neck and heads: one graph, the same results, and no new graph for each number of RoIs."""

import pytest
import torch
from mmengine.config import ConfigDict
from torch._dynamo.testing import CompileCounterWithBackend

from mmdet.registry import MODELS
from mmpanet.models import FCFusionMaskHead, PANetNeck, PANetShared2FCBBoxHead, PANetShared4Conv1FCBBoxHead

GN = dict(type='GN', num_groups=4)


def neck_inputs(size):
    return (tuple(torch.randn(1, 8 << i, size >> i, size >> i, requires_grad=True) for i in range(4)),)


def grids(num, edge):
    return (torch.randn(num, 4, edge, edge, 16).permute(0, 1, 4, 2, 3).requires_grad_(),)


MODULES = {
    'neck': (lambda: PANetNeck([8, 16, 32, 64], 16, 5, norm_cfg=GN), neck_inputs, (32, 64)),
    # A part that is built from a config has ConfigDicts for its settings.
    'neck-from-config': (
        lambda: MODELS.build(
            ConfigDict(
                type='PANetNeck',
                in_channels=[8, 16, 32, 64],
                out_channels=16,
                num_outs=6,
                add_extra_convs='on_lateral',
                upsample_cfg=dict(mode='nearest'),
                fusion='weighted',
            )
        ),
        neck_inputs,
        (32, 64),
    ),
    '2fc': (
        lambda: PANetShared2FCBBoxHead(in_channels=16, fc_out_channels=32, num_classes=3, norm_cfg=GN),
        lambda num: grids(num, 7),
        (5, 9, 17, 23),
    ),
    '4conv1fc': (
        lambda: PANetShared4Conv1FCBBoxHead(
            in_channels=16, conv_out_channels=16, fc_out_channels=32, num_classes=3, norm_cfg=GN
        ),
        lambda num: grids(num, 7),
        (5, 9, 17, 23),
    ),
    'mask': (
        lambda: FCFusionMaskHead(in_channels=16, conv_out_channels=16, num_classes=3, roi_feat_size=14),
        lambda num: grids(num, 14),
        (3, 5, 9, 11),
    ),
}


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    return [leaf for item in value for leaf in leaves(item)]


@pytest.mark.parametrize(
    'backend', ['eager', *(pytest.param(name, marks=pytest.mark.slow) for name in ('aot_eager', 'inductor'))]
)
@pytest.mark.parametrize('name', MODULES)
def test_one_graph_forward_and_backward(name, backend):
    torch._dynamo.reset()
    build, make_inputs, sizes = MODULES[name]
    module = build()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    for size in sizes:
        inputs = make_inputs(size)
        results = []
        for function in (module, compiled):
            outs = leaves(function(*inputs))
            sum(out.square().sum() for out in outs).backward()
            wanted = [*leaves(inputs), *module.parameters()]
            results.append(outs + [leaf.grad.clone() for leaf in wanted])
            for leaf in wanted:
                leaf.grad = None
        for one, other in zip(*results):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * one.abs().max().item() + 1e-6)
    if hasattr(torch._dynamo.config, 'automatic_dynamic_shapes'):  # torch 2.0 compiles anew for each shape
        # One graph for the first number of RoIs, one for all others, and sometimes one in between.
        assert counter.frame_count <= 3


@pytest.mark.skipif(not hasattr(getattr(torch, 'export', None), 'Dim'), reason='this torch has no torch.export.Dim')
@pytest.mark.parametrize('name', MODULES)
def test_export(name):
    """Heads for any number of RoIs, the neck for the size with which it was exported."""
    build, make_inputs, (size, other, *_) = MODULES[name]
    module = build().eval()
    rois = torch.export.Dim('rois', min=2)
    dynamic_shapes = None if name.startswith('neck') else ({0: rois},)
    program = torch.export.export(module, make_inputs(size), dynamic_shapes=dynamic_shapes).module()
    inputs = make_inputs(size if name.startswith('neck') else other)
    for one, expected in zip(leaves(program(*inputs)), leaves(module(*inputs))):
        torch.testing.assert_close(one, expected, rtol=1e-5, atol=1e-5)
