# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Exported graphs in mmdet's test loop, and in eight bits."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from repository import ROOT
from small_detectors import FPN, authors_boxes, build, config, enlarge, write_image

from mmpanet.apis.image_loader import ImageLoader
from mmpanet.deploy import ExportError, GraphDetector, export_detector, quantize_graph, runtimes
from mmpanet.deploy.graph_detector import has_inclusive_boxes
from mmpanet.deploy.int8 import OUTPUT_LAYERS
from mmpanet.deploy.verify import compare_detections, match_detections
from mmpanet.utils import environment

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

SCALE = 1.5


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """An FPN whose test pipeline enlarges images, its config, its folder and some images."""
    folder = tmp_path_factory.mktemp('graph')
    cfg = enlarge(config(FPN), SCALE)
    model = build(cfg)
    export_detector(model, cfg, folder, paste_masks=False)
    images = [write_image(folder / f'{i}.png', (96, 128), i) for i in range(4)]
    return model, cfg, folder, images


def samples(cfg, images):
    load_image = ImageLoader(cfg)
    return pseudo_collate([load_image(path, i)[1] for i, path in enumerate(images)])


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
@torch.no_grad()
def test_predictions_are_those_of_mmdet_in_the_original_image(exported, runtime):
    pytest.importorskip(runtime)
    model, cfg, folder, images = exported
    assert not has_inclusive_boxes(cfg)
    found = GraphDetector(folder / 'end2end.onnx', runtime).test_step(samples(cfg, images))
    check_equal(found, model.test_step(samples(cfg, images)))


@torch.no_grad()
def test_boxes_that_name_their_last_pixel_end_behind_it(tmp_path):
    cfg = enlarge(authors_boxes(), SCALE)
    model = build(cfg)
    export_detector(model, cfg, tmp_path, paste_masks=False)
    images = [write_image(tmp_path / f'{i}.png', (96, 128), i) for i in range(2)]
    assert has_inclusive_boxes(cfg) and json.loads((tmp_path / 'detector.json').read_text())['inclusive_boxes']
    found = GraphDetector(tmp_path / 'end2end.onnx').test_step(samples(cfg, images))
    check_equal(found, model.test_step(samples(cfg, images)))
    (tmp_path / 'detector.json').write_text('{}')  # as graphs had it that added a pixel themselves
    with pytest.raises(ExportError, match=r'detector\.json: does not say .* \(inclusive_boxes\): export again'):
        GraphDetector(tmp_path / 'end2end.onnx')


def check_equal(found, expected):
    """The same objects in images of 96 x 128."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        one, other = one.pred_instances, other.pred_instances
        dets = torch.cat([one.bboxes, one.scores[:, None]], dim=1).numpy()
        pairs = match_detections(other, dets, one.labels.numpy())
        assert len(pairs) == len(one) == len(other) > 5
        left, right = pairs[:, 0], pairs[:, 1]
        np.testing.assert_allclose(dets[right, :4], other.bboxes[left], atol=1e-2)
        np.testing.assert_allclose(dets[right, 4], other.scores[left], atol=1e-4)
        assert one.masks.shape[1:] == other.masks.shape[1:] == (96, 128)
        assert (one.masks[right] != other.masks[left]).sum() <= 1e-3 * other.masks.sum()


def check_similar(found, expected):
    """Most objects are found again, with nearly the same masks. Eight bits move random scores past one another."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        one, other = one.pred_instances, other.pred_instances
        dets = torch.cat([one.bboxes, one.scores[:, None]], dim=1).numpy()
        pairs = match_detections(other, dets, one.labels.numpy())
        assert len(pairs) >= 0.5 * len(other) > 2
        masks = other.masks[pairs[:, 0]]
        assert (one.masks[pairs[:, 1]] != masks).sum() <= 0.1 * masks.sum()
        assert one.scores.max() == pytest.approx(other.scores.max().item(), abs=0.1)


@torch.no_grad()
def test_masks_without_a_threshold_are_probabilities_in_eight_bits(exported, monkeypatch):
    model, cfg, folder, images = exported
    monkeypatch.setitem(model.roi_head.test_cfg, 'mask_thr_binary', -1)
    [found] = GraphDetector(folder / 'end2end.onnx', mask_threshold=-1).test_step(samples(cfg, images[:1]))
    [expected] = model.test_step(samples(cfg, images[:1]))
    one, other = found.pred_instances, expected.pred_instances
    pairs = match_detections(other, torch.cat([one.bboxes, one.scores[:, None]], dim=1).numpy(), one.labels.numpy())
    assert one.masks.dtype == other.masks.dtype == torch.uint8 and len(pairs) == len(other) > 5
    differences = one.masks[pairs[:, 1]].int() - other.masks[pairs[:, 0]].int()
    assert differences.abs().max() <= 1


def test_masks_in_the_resized_image_are_refused(exported):
    _, cfg, folder, images = exported
    detector = GraphDetector(folder / 'end2end.onnx')
    detector.run_graph = lambda image: [
        np.ones((1, 1, 5), np.float32), np.zeros((1, 1), int), np.ones((1, 1, *image.shape[2:]), bool)
    ]  # fmt: skip
    with pytest.raises(ExportError, match='export with --masks box'):
        detector.test_step(samples(cfg, images[:1]))


@pytest.mark.parametrize(
    'arguments, problem',
    [
        (dict(graph='nowhere.onnx'), 'nowhere.onnx: no such file'),
        (dict(graph='nowhere.onnx', runtime='ncnn'), "runtime='ncnn' must be one of"),
    ],
)
def test_what_cannot_be_opened_is_named(arguments, problem):
    with pytest.raises(ExportError, match=problem):
        GraphDetector(**arguments)


def test_bfloat16_needs_a_processor_that_has_it(exported, monkeypatch):
    for module in (environment, runtimes):
        monkeypatch.setattr(module, 'instruction_sets', lambda: ['AVX2', 'AVX512'])
    with pytest.raises(
        ExportError, match=r"runtime='openvino-bf16': this processor \(AVX2, AVX512\) has no instructions"
    ):
        GraphDetector(exported[2] / 'end2end.onnx', 'openvino-bf16')


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / 'x.onnx').write_text('no graph')
    with pytest.raises(ExportError, match=r'x\.onnx: onnxruntime cannot run this file: '):
        GraphDetector(tmp_path / 'x.onnx')


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_a_graph_that_takes_sizes_is_named(exported, tmp_path, runtime):
    """Nobody gives it the sizes, neither to detect nor to calibrate. The model is left in the mode that it had."""
    pytest.importorskip(runtime)
    model, cfg, _, images = exported
    model.train()
    model.backbone.eval()
    export_detector(model, cfg, tmp_path, paste_masks=False, with_sizes=True)
    assert model.training and model.roi_head.bbox_head.training and not model.backbone.training
    problem = r"its inputs are \['input', 'sizes'\], and must be \['input'\]: export it without --sizes"
    with pytest.raises(ExportError, match=problem):
        GraphDetector(tmp_path / 'end2end.onnx', runtime)
    with pytest.raises(ExportError, match=problem):
        quantize_graph(tmp_path / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, images)
    assert not (tmp_path / 'int8.onnx').exists()
    model.eval()


@torch.no_grad()
def test_types_of_images(tmp_path):
    """A graph of float images takes both types. One of uint8 refuses floats, which it would have to cut."""
    cfg = enlarge(config(FPN), SCALE)
    model = build(cfg)
    images = [write_image(tmp_path / f'{i}.png', (96, 128), i) for i in range(2)]
    loads_float = copy.deepcopy(cfg)
    loads_float.test_dataloader.dataset.pipeline[0].to_float32 = True
    with pytest.raises(ExportError, match=r"input_type='uint8': test_pipeline .* \(to_float32=True\)"):
        export_detector(model, loads_float, tmp_path / 'uint8', paste_masks=False, input_type='uint8')
    assert not (tmp_path / 'uint8').exists()
    export_detector(model, loads_float, tmp_path / 'float32', paste_masks=False)
    assert json.loads((tmp_path / 'float32/detector.json').read_text())['input_type'] == 'float32'
    detector = GraphDetector(tmp_path / 'float32/end2end.onnx')
    for each in (cfg, loads_float):
        check_equal(detector.test_step(samples(each, images)), model.test_step(samples(each, images)))
    export_detector(model, cfg, tmp_path / 'uint8', paste_masks=False)
    with pytest.raises(
        ExportError, match='takes images of uint8, .* gives float32: export it with --input-type float32'
    ):
        GraphDetector(tmp_path / 'uint8/end2end.onnx').test_step(samples(loads_float, images))


@pytest.mark.slow
def test_eight_bits_of_a_graph_of_float_images(exported, tmp_path):
    model, cfg, _, images = exported
    export_detector(model, cfg, tmp_path, paste_masks=False, input_type='float32')
    quantize_graph(tmp_path / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, images)
    check_similar(
        GraphDetector(tmp_path / 'int8.onnx').test_step(samples(cfg, images)),
        GraphDetector(tmp_path / 'end2end.onnx').test_step(samples(cfg, images)),
    )


@pytest.mark.slow
def test_eight_bits_change_little_and_leave_the_output_layers_alone(exported, tmp_path):
    model, cfg, folder, images = exported
    nodes = quantize_graph(folder / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, images)
    graph = onnx.load(str(tmp_path / 'int8.onnx')).graph
    assert len(nodes) > 20 and not any(f'/{name}' in node for node in nodes for name in OUTPUT_LAYERS)
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in ('Conv', 'Gemm'):
            x, weight = (name in producers and producers[name].op_type == 'DequantizeLinear' for name in node.input[:2])
            assert weight == (node.name in nodes) and (x or not weight)
        # No output of a layer is rounded before its ReLU: the scale behind it begins at zero, and stands for the ReLU.
        if node.op_type == 'Relu':
            assert producers[node.input[0]].op_type != 'DequantizeLinear'
    scales = [node for node in graph.node if node.op_type == 'QuantizeLinear']
    assert any(producers[node.input[0]].op_type == 'Conv' and 'Relu' in node.name for node in scales)
    kept = {name for node in graph.node for name in OUTPUT_LAYERS if f'/{name}' in node.name}
    assert kept == {'rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg', 'conv_logits'}
    small, whole = (path.stat().st_size for path in (tmp_path / 'int8.onnx', folder / 'end2end.onnx'))
    assert small < 0.4 * whole
    eight = GraphDetector(tmp_path / 'int8.onnx', inclusive_boxes=False).test_step(samples(cfg, images))
    full = GraphDetector(folder / 'end2end.onnx').test_step(samples(cfg, images))
    check_similar(eight, full)


@pytest.mark.slow
def test_the_fc_of_fully_connected_fusion_stays_in_float(tmp_path):
    cfg = config()
    export_detector(build(cfg), cfg, tmp_path, paste_masks=False)
    nodes = quantize_graph(
        tmp_path / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, [write_image(tmp_path / 'a.png', (96, 128), 0)]
    )
    graph = onnx.load(str(tmp_path / 'int8.onnx')).graph
    [fc] = [node for node in graph.node if '/mask_fc/' in node.name and node.op_type == 'Gemm']
    assert fc.name not in nodes and any(fc.input[1] == one.name for one in graph.initializer)


@pytest.mark.slow
def test_parts_that_stay_in_float(exported, tmp_path):
    graph, target = exported[2] / 'end2end.onnx', tmp_path / 'int8.onnx'
    nodes = quantize_graph(graph, target, exported[1], exported[3])
    parts = ['masks', 'backbone/layer1', 'masks/heads.0']  # the last is a part of the first
    kept = quantize_graph(graph, target, exported[1], exported[3], parts)
    left_out = {node for node in nodes if node.startswith(('/masks/', '/backbone/layer1/'))}
    assert set(nodes) - set(kept) == left_out and len(left_out) > 5 and set(kept) < set(nodes)
    quantized = {node.name for node in onnx.load(str(target)).graph.node if node.op_type == 'QuantizeLinear'}
    assert quantized and not any(name.startswith('/masks/') for name in quantized)


def test_a_part_that_is_not_there_is_named(exported, tmp_path):
    with pytest.raises(ExportError, match=r"--float back: .* the parts are \['backbone', 'boxes', 'dense', 'masks'"):
        quantize_graph(exported[2] / 'end2end.onnx', tmp_path / 'int8.onnx', exported[1], exported[3], ['back'])
    assert not list(tmp_path.iterdir())


def test_all_parts_in_float_are_refused(exported, tmp_path):
    """onnxruntime would quantize everything, output layers too."""
    parts = ['backbone', 'boxes', 'dense', 'masks', 'neck']
    with pytest.raises(ExportError, match='--float backbone boxes dense masks neck: no layer would be left'):
        quantize_graph(exported[2] / 'end2end.onnx', tmp_path / 'int8.onnx', exported[1], exported[3], parts)
    assert not list(tmp_path.iterdir())


def test_weights_have_seven_bits(exported, tmp_path):
    """With eight, the sums of a processor without VNNI could overflow, wherever the graph was made."""
    quantize_graph(exported[2] / 'end2end.onnx', tmp_path / 'int8.onnx', exported[1], exported[3])
    weights = [
        onnx.numpy_helper.to_array(one)
        for one in onnx.load(str(tmp_path / 'int8.onnx')).graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    assert len(weights) > 10 and max(abs(one.astype(int)).max() for one in weights) == 64


def test_verification_of_an_image_without_objects(exported, tmp_path):
    """mmdet gives it masks of the size of the original image, and the test pipeline has changed the size."""
    model, cfg, _, images = exported
    cfg, threshold = copy.deepcopy(cfg), model.roi_head.test_cfg.score_thr
    model.roi_head.test_cfg.score_thr = 1.0
    try:
        export_detector(model, cfg, tmp_path)
        found = compare_detections(model, cfg, tmp_path, images[:1])
    finally:
        model.roi_head.test_cfg.score_thr = threshold
    assert found.detections == found.extra == 0 and found.masks == 0


def test_no_image_to_calibrate_with_is_an_error(exported, tmp_path):
    with pytest.raises(ExportError, match='no image to calibrate with'):
        quantize_graph(exported[2] / 'end2end.onnx', tmp_path / 'int8.onnx', exported[1], [])
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_openvino_compiles_eight_bits_with_norms_of_fcs(exported, tmp_path):
    pytest.importorskip('openvino')
    cfg = config(ROOT / 'configs/dsb2018/ablation/mask-rcnn_r18_fpn_48e_dsb2018.py')
    model = build(cfg)
    assert any(isinstance(one, torch.nn.GroupNorm) for one in model.roi_head.bbox_head.modules())
    export_detector(model, cfg, tmp_path, paste_masks=False)
    quantize_graph(tmp_path / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, exported[3])
    GraphDetector(tmp_path / 'int8.onnx', 'openvino', inclusive_boxes=False)


@pytest.mark.slow
def test_openvino_runs_eight_bits(exported, tmp_path):
    """It needs the size of a box before it runs."""
    pytest.importorskip('openvino')
    model, cfg, folder, images = exported
    quantize_graph(folder / 'end2end.onnx', tmp_path / 'int8.onnx', cfg, images)
    one, other = (
        GraphDetector(tmp_path / 'int8.onnx', runtime, inclusive_boxes=False).test_step(samples(cfg, images))
        for runtime in ('openvino', 'onnxruntime')
    )
    check_similar(one, other)


@pytest.mark.slow
@pytest.mark.skipif('BF16' not in environment.instruction_sets(), reason='this processor has no bfloat16')
def test_openvino_computes_in_bfloat16(exported):
    pytest.importorskip('openvino')
    _, cfg, folder, images = exported
    one, other = (
        GraphDetector(folder / 'end2end.onnx', runtime, inclusive_boxes=False).test_step(samples(cfg, images))
        for runtime in ('openvino-bf16', 'openvino')
    )
    for a, b in zip(one, other):
        low, full = a.pred_instances.scores[:5], b.pred_instances.scores[:5]
        assert not torch.equal(low, full)
        torch.testing.assert_close(low, full, rtol=0.05, atol=0.02)


def test_boxes_in_front_of_the_suppression_have_a_known_size(exported):
    graph = onnx.load(str(exported[2] / 'end2end.onnx')).graph
    producers = {output: node for node in graph.node for output in node.output}
    constants = {one.name: one for one in graph.initializer}
    suppressions = [node for node in graph.node if node.op_type == 'NonMaxSuppression']
    assert suppressions
    for node in suppressions:
        reshape = producers[node.input[0]]
        shape = constants.get(reshape.input[1]) or producers[reshape.input[1]].attribute[0].t
        assert reshape.op_type == 'Reshape' and onnx.numpy_helper.to_array(shape).tolist() == [0, -1, 4]
