# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Properties that hold for all arguments and inputs, tested on generated ones: on a few, or on many if marked slow."""

import copy
import json
import math
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mmcv.ops import roi_align
from mmengine.config import Config

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import MODELS
from mmpanet.datasets.checks import check_annotations
from mmpanet.ops import multi_level_roi_align
from mmpanet.swap import SwapError, swap_config

sys.path.append(str(Path(__file__).parent / 'test_bad_input'))
from annotation_cases import good_data  # noqa: E402

COMMON = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
QUICK = settings(max_examples=25, derandomize=True, **COMMON)
LONG = settings(max_examples=400, print_blob=True, **COMMON)
PROPERTIES = {}


def holds_for(**strategies):
    """Register a property together with the strategies for its arguments."""

    def register(check):
        PROPERTIES[check.__name__] = lambda profile: profile(given(**strategies)(check))()
        return check

    return register


# The neck

NORMS = st.sampled_from([None, dict(type='GN', num_groups=2), dict(type='BN')])


@st.composite
def fpn_arguments(draw):
    """Valid arguments of FPN."""
    num_ins = draw(st.integers(1, 5))
    start = draw(st.integers(0, num_ins - 1))
    end = draw(st.sampled_from([-1, *range(start, num_ins)]))
    extra = draw(st.integers(0, 2)) if end in (-1, num_ins - 1) else 0
    levels = (num_ins if end == -1 else end + 1) - start
    return dict(
        in_channels=draw(st.lists(st.integers(1, 6), min_size=num_ins, max_size=num_ins)),
        out_channels=4 * draw(st.integers(1, 2)),  # GN needs two values per group
        num_outs=levels + extra,
        start_level=start,
        end_level=end,
        add_extra_convs=draw(st.sampled_from([False, True, 'on_input', 'on_lateral', 'on_output'])),
        relu_before_extra_convs=draw(st.booleans()),
        no_norm_on_lateral=draw(st.booleans()),
        norm_cfg=draw(NORMS),
        act_cfg=draw(st.sampled_from([None, dict(type='ReLU')])),
    )


@st.composite
def backbone_sizes(draw):
    """Heights and widths of five levels. Each is half of the one before, rounded up or down, or as large (dilated)."""
    sizes = [(draw(st.integers(1, 40)), draw(st.integers(1, 40)))]
    for _ in range(4):
        halve = draw(st.sampled_from([lambda side: (side + 1) // 2, lambda side: max(1, side // 2), lambda side: side]))
        sizes.append(tuple(map(halve, sizes[-1])))
    return sizes


def backbone_maps(channels, sizes, batch):
    return [torch.randn(batch, c, *size, dtype=torch.float64) for c, size in zip(channels, sizes)]


@holds_for(
    arguments=fpn_arguments(),
    sizes=backbone_sizes(),
    batch=st.integers(1, 2),
    fusion=st.sampled_from(['sum', 'concat', 'weighted']),
    own_norm=st.one_of(st.just('same'), NORMS),
    bias=st.sampled_from(['auto', True, False]),
    seed=st.integers(0, 99),
)
def neck_has_the_shapes_of_fpn_and_trains_all_of_itself(arguments, sizes, batch, fusion, own_norm, bias, seed):
    torch.manual_seed(seed)
    neck = MODELS.build(
        dict(type='PANetNeck', fusion=fusion, bottom_up_norm_cfg=own_norm, bottom_up_bias=bias, **arguments)
    ).double()
    neck.init_weights()
    neck.eval()  # one pixel has no variance
    maps = backbone_maps(arguments['in_channels'], sizes, batch)
    outs = neck(maps)
    expected = MODELS.build(dict(type='FPN', **arguments)).double().eval()(maps)
    assert [out.shape for out in outs] == [out.shape for out in expected]
    assert all(out.isfinite().all() for out in outs)
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    for name, parameter in neck.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@holds_for(
    arguments=fpn_arguments(),
    sizes=backbone_sizes(),
    fusion=st.sampled_from(['sum', 'concat', 'weighted']),
    seed=st.integers(0, 99),
)
def swapped_neck_starts_as_the_fpn(arguments, sizes, fusion, seed):
    torch.manual_seed(seed)
    cfg = Config(dict(default_scope='mmdet', model=dict(type='RetinaNet', neck=dict(type='FPN', **arguments))))
    before = copy.deepcopy(cfg)
    swapped = swap_config(cfg, warm_start=True, fusion=fusion)
    assert cfg.to_dict() == before.to_dict()
    with pytest.raises(SwapError):
        swap_config(swapped)
    fpn, neck = (MODELS.build(one.model.neck).double() for one in (cfg, swapped))
    fpn.init_weights()
    neck.init_weights()
    assert not neck.load_state_dict(fpn.state_dict(), strict=False).unexpected_keys
    maps = backbone_maps(arguments['in_channels'], sizes, 2)
    for old, new in zip(fpn.eval()(maps), neck.eval()(maps)):
        torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)


# Pooling


HUGE_SIZES = (1e4, 1e7)


@st.composite
def rois(draw, batch, at_least=0, sizes=HUGE_SIZES):
    """RoIs of all sizes and places: without area, outside of the image, larger than the image."""
    place = st.one_of(st.floats(-60, 200), st.integers(-8, 40).map(float), st.sampled_from([-1e6, 1e5, 1e8]))
    size = st.one_of(st.floats(0, 300), st.sampled_from([0.0, 1e-6, 1.0, 16.0, *sizes]))
    boxes = draw(
        st.lists(st.tuples(st.integers(0, batch - 1), place, place, size, size), min_size=at_least, max_size=5)
    )
    return torch.tensor([[image, x, y, x + w, y + h] for image, x, y, w, h in boxes], dtype=torch.float64).view(-1, 5)


@st.composite
def pooling_inputs(draw, strides, at_least=0):
    levels = draw(st.integers(1, 4))
    sampling_ratio = draw(st.integers(0, 3))
    batch = draw(st.integers(1, 2))
    sizes = draw(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=levels, max_size=levels))
    return dict(
        sizes=sizes,
        batch=batch,
        channels=draw(st.integers(1, 3)),
        strides=draw(st.lists(strides, min_size=levels, max_size=levels)),
        # With sampling_ratio=0 mmcv takes memory for all samples of a RoI.
        rois=draw(rois(batch, at_least, sizes=HUGE_SIZES if sampling_ratio else ())),
        output_size=draw(st.tuples(st.integers(1, 4), st.integers(1, 4))),
        sampling_ratio=sampling_ratio,
        aligned=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def taps(start, end, bins, samples, limit, aligned):
    """The weights of the pixels of an axis in each bin, (bins, limit), by the definition of RoIAlign.

    RoIAlign is discontinuous at -1 and at ``limit``. If ``samples`` is 0, their number depends on the size of the RoI,
    and it jumps too. The result is None if a sample is so close to a border, or the size so close to a jump, that
    rounding decides.
    """
    shift = 0.5 if aligned else 0.0
    start, end = start - shift, end - shift
    extent = end - start if aligned else max(end - start, 1.0)
    weights = torch.zeros(bins, limit, dtype=torch.float64)
    if not samples:
        nearest = round(extent / bins)
        if 0 < abs(extent / bins - nearest) < 1e-6 * max(1.0, nearest):
            return None
        samples = math.ceil(extent / bins)
    for i in range(bins * samples):
        position = start + extent * (i + 0.5) / (bins * samples)
        if min(abs(position + 1), abs(position - limit)) < 1e-6 * max(1.0, abs(start), extent):
            return None
        if not -1 < position < limit:
            continue
        position = max(position, 0.0)
        low = math.floor(position)
        if low >= limit - 1:
            weights[i // samples, limit - 1] += 1 / samples
        else:
            weights[i // samples, low] += (low + 1 - position) / samples
            weights[i // samples, low + 1] += (position - low) / samples
    return weights


def by_definition(feats, inputs):
    """Pool each RoI from each level as y weights times map times x weights. Leave out RoIs that depend on rounding."""
    pooled, kept = [], []
    for n, (image, x1, y1, x2, y2) in enumerate(inputs['rois'].tolist()):
        grids = []
        for feat, stride in zip(feats, inputs['strides']):
            height, width = feat.shape[2:]
            (h, w), samples, aligned = inputs['output_size'], inputs['sampling_ratio'], inputs['aligned']
            rows = taps(y1 / stride, y2 / stride, h, samples, height, aligned)
            columns = taps(x1 / stride, x2 / stride, w, samples, width, aligned)
            if rows is None or columns is None:
                break
            grids.append(torch.einsum('hy,cyx,wx->chw', rows, feat[int(image)], columns))
        else:
            pooled.append(torch.stack(grids))
            kept.append(n)
    return torch.stack(pooled) if pooled else None, kept


def pooled_maps(inputs):
    torch.manual_seed(inputs['seed'])
    return [
        torch.randn(inputs['batch'], inputs['channels'], *size, dtype=torch.float64, requires_grad=True)
        for size in inputs['sizes']
    ]


def assert_same_with_gradients(out, expected, feats, tolerance):
    # The bilinear weights are differences of positions, and these are large for an RoI far away.
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    grad = torch.randn_like(out)
    expected_grads = torch.autograd.grad(expected, feats, grad, retain_graph=True)
    for ours, theirs in zip(torch.autograd.grad(out, feats, grad), expected_grads):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * max(1, len(out)) * 10)


def tolerance_of(inputs):
    return 1e-9 * max(1.0, inputs['rois'].abs().max().item() / 100 if len(inputs['rois']) else 1.0)


@holds_for(inputs=pooling_inputs(st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32, 64])))
def pooling_is_its_definition(inputs):
    feats = pooled_maps(inputs)
    arguments = (
        inputs['output_size'],
        [1 / stride for stride in inputs['strides']],
        inputs['sampling_ratio'],
        inputs['aligned'],
    )
    out = multi_level_roi_align(feats, inputs['rois'], *arguments)
    assert out.shape == (len(inputs['rois']), len(feats), inputs['channels'], *inputs['output_size'])
    assert out.isfinite().all()
    with torch.no_grad():  # without gradients, taps are not merged
        torch.testing.assert_close(
            multi_level_roi_align(feats, inputs['rois'], *arguments), out, rtol=0, atol=tolerance_of(inputs)
        )
    expected, kept = by_definition(feats, inputs)
    if kept:
        assert_same_with_gradients(out[kept], expected, feats, tolerance_of(inputs))


@holds_for(inputs=pooling_inputs(st.sampled_from([1, 2, 4, 8, 16, 32, 64])))  # mmcv's scale is a float32
def pooling_is_that_of_mmcv(inputs):
    feats = pooled_maps(inputs)
    kept = by_definition(feats, inputs)[1]
    boxes = inputs['rois'][kept]
    outs = []
    for backend in ('embedding_bag', 'roi_align'):
        pooling = MODELS.build(
            dict(
                type='AdaptiveFeaturePooling',
                out_channels=inputs['channels'],
                featmap_strides=inputs['strides'],
                backend=backend,
                roi_layer=dict(
                    type='RoIAlign',
                    output_size=inputs['output_size'],
                    sampling_ratio=inputs['sampling_ratio'],
                    aligned=inputs['aligned'],
                ),
            )
        )
        outs.append(pooling(feats, boxes))
    expected = torch.stack(
        [
            roi_align(
                feat, boxes, inputs['output_size'], 1 / stride, inputs['sampling_ratio'], 'avg', inputs['aligned']
            )
            for feat, stride in zip(feats, inputs['strides'])
        ],
        dim=1,
    )
    for out in outs:
        assert_same_with_gradients(out, expected, feats, tolerance_of(inputs))


@holds_for(inputs=pooling_inputs(st.sampled_from([4, 8, 16, 32]), at_least=1), finest_scale=st.sampled_from([7, 56]))
def fast_extractor_is_that_of_mmdet(inputs, finest_scale):
    feats = pooled_maps(inputs)
    kept = by_definition(feats, inputs)[1]
    assume(kept)
    boxes = inputs['rois'][kept]
    outs = [
        MODELS.build(
            dict(
                type=kind,
                out_channels=inputs['channels'],
                featmap_strides=inputs['strides'],
                finest_scale=finest_scale,
                roi_layer=dict(
                    type='RoIAlign',
                    output_size=inputs['output_size'],
                    sampling_ratio=inputs['sampling_ratio'],
                    aligned=inputs['aligned'],
                ),
            )
        )(feats, boxes)
        for kind in ('FastSingleRoIExtractor', 'SingleRoIExtractor')
    ]
    assert_same_with_gradients(*outs, feats, tolerance_of(inputs))


# Heads


@st.composite
def head_arguments(draw):
    return dict(
        num_levels=draw(st.integers(1, 5)),
        level_fusion=draw(st.sampled_from(['max', 'sum'])),
        share_first_layer=draw(st.booleans()),
        fuse_before_first_layer=draw(st.booleans()),
        in_channels=draw(st.integers(1, 5)),
        num_classes=draw(st.integers(1, 4)),
        norm_cfg=draw(st.sampled_from([None, dict(type='GN', num_groups=2), dict(type='BN')])),
    )


def check_head(head, num_rois, shapes):
    """Check the shapes, the gradient of each parameter, also without RoIs, and that RoIs do not affect each other."""
    levels, channels, size = head.num_levels, head.in_channels, head.roi_feat_size
    x = torch.randn(num_rois, levels, channels, *size, dtype=torch.float64, requires_grad=True)
    head.init_weights()
    head.double().eval()

    def outputs(x):
        outs = head(x)
        return outs if isinstance(outs, tuple) else (outs,)

    outs = outputs(x)
    assert [tuple(out.shape) for out in outs] == shapes
    assert all(out.isfinite().all() for out in outs)
    sum(out.sum() for out in outs).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    order = torch.randperm(num_rois)
    with torch.no_grad():
        for out, again in zip(outs, outputs(x.detach()[order])):
            torch.testing.assert_close(again, out.detach()[order], rtol=1e-9, atol=1e-9)


@holds_for(
    arguments=head_arguments(),
    kind=st.sampled_from(['PANetShared2FCBBoxHead', 'PANetShared4Conv1FCBBoxHead']),
    num_rois=st.integers(0, 4),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    agnostic=st.booleans(),
    seed=st.integers(0, 99),
)
def box_head_takes_any_rois(arguments, kind, num_rois, size, agnostic, seed):
    torch.manual_seed(seed)
    convs = {} if kind == 'PANetShared2FCBBoxHead' else dict(conv_out_channels=4)
    head = MODELS.build(
        dict(type=kind, fc_out_channels=6, roi_feat_size=size, reg_class_agnostic=agnostic, **convs, **arguments)
    )
    classes = arguments['num_classes']
    check_head(head, num_rois, [(num_rois, classes + 1), (num_rois, 4 if agnostic else 4 * classes)])


@holds_for(
    arguments=head_arguments(),
    num_rois=st.integers(0, 4),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    num_convs=st.integers(1, 4),
    start=st.sampled_from([2, 3, 4]),
    relu=st.booleans(),
    fc_fusion=st.sampled_from(['sum', 'product', 'max', None]),
    agnostic=st.booleans(),
    seed=st.integers(0, 99),
)
def mask_head_takes_any_rois(arguments, num_rois, size, num_convs, start, relu, fc_fusion, agnostic, seed):
    assume(fc_fusion is None or start <= num_convs)
    torch.manual_seed(seed)
    head = MODELS.build(
        dict(
            type='FCFusionMaskHead',
            conv_out_channels=8,
            roi_feat_size=size,
            num_convs=num_convs,
            fc_branch_start=start,
            fc_relu=relu,
            fc_fusion=fc_fusion,
            class_agnostic=agnostic,
            **arguments,
        )
    )
    maps = 1 if agnostic else arguments['num_classes']
    check_head(head, num_rois, [(num_rois, maps, 2 * size[0], 2 * size[1])])


# Annotations

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 50), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(['id', 'name', 'counts', 'size', 'x']), inner, max_size=3),
    ),
    max_leaves=5,
)


def places(node, path=()):
    """The paths of all values in nested lists and objects."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@holds_for(data=st.data(), changes=st.integers(1, 2), drop=st.booleans())
def check_of_annotations_lets_nothing_through(data, changes, drop):
    """The check ends for any content of a file, and MMDetection reads every file that passes the check."""
    content = good_data()
    for _ in range(changes):
        path = data.draw(st.sampled_from([path for path in places(content) if path]))
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        if drop:
            del parent[path[-1]]
        else:
            parent[path[-1]] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, 'annotations.json'))
        Path(file).write_text(json.dumps(content))
        if check_annotations(file, ('disc', 'ring'), masks=True).faults:
            return
        dataset = CocoDataset(
            ann_file=file, metainfo=dict(classes=('disc', 'ring')), data_prefix=dict(img='images'), pipeline=[]
        )
    load = LoadAnnotations(with_bbox=True, with_mask=True)
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        loaded = load({**info, 'ori_shape': (32, 48)})
        assert loaded['gt_bboxes'].tensor.isfinite().all()
        assert len(loaded['gt_masks']) == len(loaded['gt_bboxes'])


@pytest.mark.parametrize('name', PROPERTIES)
@pytest.mark.parametrize('profile', [QUICK, pytest.param(LONG, marks=pytest.mark.slow)], ids=['quick', 'long'])
def test_property(name, profile):
    PROPERTIES[name](profile)
