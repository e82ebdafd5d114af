# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The exported graph against PyTorch, for every RoI head, and its own operators against mmcv's and mmdet's."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.ops import nms
from small_detectors import (
    FPN,
    ONE_STAGE,
    PANET,
    authors_boxes,
    build,
    config,
    enlarge,
    one_stage,
    pixels,
    with_roi_head,
    write_image,
)

from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.deploy import compare_detections, export_detector
from mmpanet.deploy.box_coding import decode_boxes
from mmpanet.deploy.end2end import Preprocessing
from mmpanet.deploy.export import OPSET
from mmpanet.deploy.operators import NO_BOX, best_of, suppressed_scores
from mmpanet.deploy.roi_heads import paste_masks
from mmpanet.models.inclusive_boxes import InclusiveBBoxCoder
from mmpanet.models.layers import GATE_PARAMETERS
from mmpanet.swap import swap_config
from mmpanet.utils.errors import ExportError


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Of sizes that are no multiples of anything, of one that is, and of one with a single row of the coarsest map."""
    folder = tmp_path_factory.mktemp('images')
    sizes = [(97, 131), (120, 70), (96, 128), (31, 201)]
    return [write_image(folder / f'{i}.png', size, i) for i, size in enumerate(sizes)]


def check_equal(model, cfg, folder, images, least=10):
    pytest.importorskip('onnxruntime')
    for runtime in ('onnxruntime', 'openvino'):
        if find_spec(runtime):
            found = compare_detections(model, cfg, folder, images, runtime)
            assert found.detections >= least and found.matched == found.detections and found.extra == 0, runtime
            assert found.bboxes < 1e-2 and found.scores < 1e-4 and found.masks < 1e-3, runtime


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    model, cfg = build(config()), config()
    folder = tmp_path_factory.mktemp('panet')
    files = export_detector(model, cfg, folder, classes=('a', 'b', 'c'))
    assert [path.name for path in files] == ['end2end.onnx', 'detector.json']
    return model, cfg, folder


def open_graph(folder):
    onnxruntime = pytest.importorskip('onnxruntime')
    return onnxruntime.InferenceSession(str(folder / 'end2end.onnx'), providers=['CPUExecutionProvider'])


def run_graph(runtime, folder, **inputs):
    """The outputs of a graph, as a user calls it."""
    if runtime == 'onnxruntime':
        return open_graph(folder).run(None, inputs)
    openvino = pytest.importorskip('openvino')
    # Without the hint OpenVINO computes in bfloat16 where the processor has it.
    model = openvino.Core().compile_model(str(folder / 'end2end.onnx'), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    return [np.asarray(output) for output in model(inputs).values()]


@pytest.mark.gpu
def test_panet_gives_the_detections_of_pytorch(exported, images, device, monkeypatch):
    onnxruntime = pytest.importorskip('onnxruntime')
    provider = dict(cpu='CPUExecutionProvider', cuda='CUDAExecutionProvider')[device.type]
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f'this onnxruntime has no {provider}')
    open_session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        'InferenceSession',
        lambda path, options, providers: open_session(path, options, providers=[provider]),
    )
    check_equal(*exported, images)


def test_the_settings_say_what_the_graph_does_not_hold(exported):
    settings = json.loads((exported[2] / 'detector.json').read_text())
    expected = dict(resize=dict(scale_factor=1.0), input_type='uint8', inclusive_boxes=False)
    assert settings == dict(expected, classes=['a', 'b', 'c'])


def test_weights_that_one_file_cannot_hold_are_refused(tmp_path, monkeypatch):
    export = torch.onnx.export

    def export_as_for_large_models(model, inputs, path, **options):
        export(model, inputs, path, **options)
        Path(path).with_name('backbone.conv1.weight').write_bytes(b'weights')

    monkeypatch.setattr(torch.onnx, 'export', export_as_for_large_models)
    with pytest.raises(ExportError, match='more than 2 GiB'):
        export_detector(build(config(FPN)), config(FPN), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_names_and_open_sizes_are_those_of_mmdeploy(exported):
    graph = open_graph(exported[2])
    assert [(one.name, one.shape) for one in graph.get_inputs()] == [('input', ['batch', 3, 'height', 'width'])]
    assert [one.name for one in graph.get_outputs()] == ['dets', 'labels', 'masks']


def test_all_operators_are_those_of_onnx(exported):
    onnx = pytest.importorskip('onnx')
    graph = onnx.load(str(exported[2] / 'end2end.onnx'))
    onnx.checker.check_model(graph, full_check=True)
    assert [(domain.domain, domain.version) for domain in graph.opset_import] == [('', OPSET)]
    assert all(node.domain == '' for node in graph.graph.node)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_a_batch_gives_what_its_images_give(exported, runtime):
    batch = np.stack([pixels((90, 110), seed).transpose(2, 0, 1) for seed in range(3)])
    together = run_graph(runtime, exported[2], input=batch)
    for index in range(3):
        dets, labels, masks = (output[0] for output in run_graph(runtime, exported[2], input=batch[index : index + 1]))
        count = (labels >= 0).sum()
        assert count > 5
        np.testing.assert_allclose(together[0][index, :count], dets, atol=1e-3)
        assert (together[1][index, :count] == labels).all() and (together[1][index, count:] == -1).all()
        assert (together[2][index, :count] != masks).mean() < 1e-4
        assert not together[0][index, count:].any() and not together[2][index, count:].any()


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_an_image_without_objects(tmp_path, runtime):
    cfg = config()
    model = build(cfg, **{'model.test_cfg.rcnn.score_thr': 1.0})
    export_detector(model, cfg, tmp_path)
    dets, labels, masks = run_graph(runtime, tmp_path, input=pixels((64, 96), 0).transpose(2, 0, 1)[None])
    assert dets.shape == (1, 0, 5) and labels.shape == (1, 0) and masks.shape == (1, 0, 64, 96)


@pytest.mark.parametrize('runtime', ['onnxruntime', 'openvino'])
def test_unequal_images_in_one_batch(tmp_path, runtime):
    """Whatever the padding holds, each image gives what PyTorch gives for it in the same padded batch."""
    cfg = config()
    model = build(cfg)
    export_detector(model, cfg, tmp_path, paste_masks=False, input_type='float32', with_sizes=True)
    sizes = [(97, 131), (70, 140)]
    inputs = [torch.from_numpy(pixels(size, seed).transpose(2, 0, 1).copy()) for seed, size in enumerate(sizes)]
    samples = [
        DetDataSample(metainfo=dict(img_id=i, img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
        for i, size in enumerate(sizes)
    ]
    data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), False)
    with torch.no_grad():
        expected = model.predict(data['inputs'], data['data_samples'], rescale=False)
    batch = np.full((2, 3, 97, 140), 7, np.float32)
    for image, one in zip(batch, inputs):
        image[:, : one.shape[1], : one.shape[2]] = one
    dets, labels, masks = run_graph(runtime, tmp_path, input=batch, sizes=np.array(sizes))
    assert masks.shape[2:] == (28, 28) and masks.max() <= 1
    for index, sample in enumerate(expected):
        instances = sample.pred_instances
        count = len(instances)
        assert count > 5 and (labels[index] >= 0).sum() == count
        assert (instances.labels.numpy() == labels[index, :count]).all()
        np.testing.assert_allclose(instances.bboxes.numpy(), dets[index, :count, :4], atol=1e-2)
        np.testing.assert_allclose(instances.scores.numpy(), dets[index, :count, 4], atol=1e-4)


CASES = [
    (PANET, 'StandardRoIHead'),
    (FPN, 'StandardRoIHead'),
    (PANET, 'CascadeRoIHead'),
    (FPN, 'CascadeRoIHead'),
    (PANET, 'DynamicRoIHead'),
    (PANET, 'PISARoIHead'),
]


@pytest.mark.slow
@pytest.mark.parametrize('path, kind', CASES, ids=lambda value: getattr(value, 'stem', value))
def test_every_roi_head(tmp_path, images, path, kind):
    cfg = with_roi_head(path, kind)
    model = build(cfg)
    assert type(model.roi_head).__name__ == kind
    export_detector(model, cfg, tmp_path)
    check_equal(model, cfg, tmp_path, images)


@pytest.mark.slow
@pytest.mark.parametrize('level_fusion', ['max', 'sum'])
def test_a_grown_model_whose_gates_have_opened(tmp_path, images, level_fusion):
    cfg = swap_config(config(FPN), roi_head=True, grow=True, level_fusion=level_fusion)
    model = build(cfg)
    gates = [parameter for name, parameter in model.named_parameters() if name.endswith(GATE_PARAMETERS)]
    assert len(gates) == 3  # neck, box head, mask head
    for gate in gates:
        torch.nn.init.uniform_(gate, -0.5, 1)
    export_detector(model, cfg, tmp_path)
    check_equal(model, cfg, tmp_path, images)


@pytest.mark.slow
@pytest.mark.parametrize('scale', [1.0, 1.5])
def test_the_authors_boxes(tmp_path, images, scale):
    cfg = enlarge(authors_boxes(), scale)
    model = build(cfg)
    export_detector(model, cfg, tmp_path)
    assert json.loads((tmp_path / 'detector.json').read_text())['inclusive_boxes']
    check_equal(model, cfg, tmp_path, images)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ONE_STAGE)
def test_one_stage_detectors(tmp_path, images, kind):
    cfg = one_stage(kind)
    # All detections are kept: where a limit cuts, equal scores would decide.
    model = build(cfg, **{'model.test_cfg.max_per_img': 2000, 'model.test_cfg.score_thr': 0.1})
    for name, parameter in model.bbox_head.named_parameters():
        if '_convs.' in name and parameter.dim() == 4:
            torch.nn.init.kaiming_normal_(parameter)  # else all scores are nearly equal
    assert type(model.bbox_head).__name__ == kind
    export_detector(model, cfg, tmp_path)
    check_equal(model, cfg, tmp_path, images)


# Parts of the graph against mmcv's and mmdet's


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_against_mmcv(offset):
    boxes = torch.rand(3, 200, 4) * 50
    boxes[..., 2:] += boxes[..., :2]
    scores = torch.rand(3, 200)
    kept = suppressed_scores(boxes, scores, dict(iou_threshold=0.5, offset=offset), 0.3)
    for group in range(3):
        candidates = (scores[group] > 0.3).nonzero()[:, 0]
        _, best = nms(boxes[group, candidates], scores[group, candidates], 0.5, offset)
        expected = torch.full((200,), NO_BOX)
        expected[candidates[best]] = scores[group, candidates[best]]
        assert 10 < len(best) < len(candidates)
        torch.testing.assert_close(kept[group], expected, rtol=0, atol=0)


def test_the_best_of_too_few():
    scores, indices = best_of(torch.tensor([[0.2, 0.9, 0.5]]), 5)
    assert scores.tolist() == [pytest.approx([0.9, 0.5, 0.2, NO_BOX, NO_BOX])]
    assert indices[0, :3].tolist() == [1, 2, 0] and indices.max() < 3


@pytest.mark.parametrize('coder', [DeltaXYWHBBoxCoder(), InclusiveBBoxCoder(), DeltaXYWHBBoxCoder(clip_border=False)])
def test_decoding_against_the_coder(coder):
    priors = torch.rand(2, 30, 4) * 60
    priors[..., 2:] += priors[..., :2]
    deltas = torch.randn(2, 30, 8) * 0.5
    sizes = torch.tensor([[80, 90], [50, 120]])
    found = decode_boxes(coder, priors, deltas, sizes)
    for index in range(2):
        expected = coder.decode(priors[index], deltas[index], max_shape=tuple(sizes[index].tolist()))
        torch.testing.assert_close(found[index], expected.reshape(30, 8))


@pytest.mark.parametrize(
    'box',
    [
        [7.0, 8.0, 7.0, 20.0],
        [60.0, 8.0, 60.0, 20.0],
        [3.2, 5.1, 40.7, 30.3],
        [-4.0, -9.0, 20.0, 70.0],
        [10.0, 10.0, 11.0, 10.5],
        [0.0, 0.0, 60.0, 50.0],
    ],
)
def test_drawing_masks_against_mmdet(box):
    masks, boxes = torch.rand(1, 1, 28, 28), torch.tensor([box])
    part, (rows, columns) = _do_paste_mask(masks, boxes, 50, 60, skip_empty=True)
    expected = torch.zeros(1, 50, 60)
    expected[:, rows, columns] = part
    found = paste_masks(masks, boxes[None], 50, 60)[0]
    assert expected.max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize('threshold', [-1, 0.3])
def test_other_thresholds_of_masks(threshold, images, tmp_path):
    """A low one shows what is drawn around a box. Below 0 masks are probabilities in eight bits."""
    (tmp_path / 'end2end_int8.onnx').write_text('the graph of another model')
    cfg = config()
    model = build(cfg, **{'model.test_cfg.rcnn.mask_thr_binary': threshold})
    export_detector(model, cfg, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['detector.json', 'end2end.onnx']
    check_equal(model, cfg, tmp_path, images)


def test_a_mean_of_whole_numbers_leaves_images_as_they_are():
    options = dict(mean=[0, 10, 20], std=[255, 1, 2], bgr_to_rgb=True, pad_size_divisor=32)
    preprocessor = MODELS.build(dict(type='DetDataPreprocessor', **options))
    image = torch.rand(1, 3, 32, 64) * 255
    sample = DetDataSample(metainfo=dict(img_shape=(32, 64)))
    expected = preprocessor(dict(inputs=[image[0]], data_samples=[sample]), False)['inputs']
    torch.testing.assert_close(Preprocessing(preprocessor)(image), expected)
