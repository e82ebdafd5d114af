# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import csv
import importlib
import json
from importlib.util import find_spec
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from repository import ROOT
from tiny_training import run_tool

from mmdet.structures.bbox import bbox_overlaps
from mmpanet.apis import find_images
from mmpanet.benchmark import measure, run
from mmpanet.benchmark.measure import count_by_part, flops_by_part, peak_memory, seconds_by_part
from mmpanet.benchmark.models import MODES, VARIANTS, PreparedModel, RunSettings, build, find_model
from mmpanet.benchmark.pooling import run_pooling_benchmark
from mmpanet.benchmark.report import as_text, pooling_text, write_benchmark, write_sweep
from mmpanet.benchmark.run import SWEEPABLE, Benchmark, ModelResult, run_benchmark, run_sweep
from mmpanet.benchmark.workload import Workload
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor, PANetNeck
from mmpanet.models.layers import FastConv2d
from mmpanet.ops import winograd
from mmpanet.utils import paired_times
from mmpanet.utils.errors import BenchmarkError, ConfigError
from mmpanet.utils.paired_times import Ratio, paired_ratio, time_in_turns

CPU = torch.device('cpu')
HAS_FLOP_COUNTER = find_spec('torch.utils.flop_counter') is not None
BASE = ROOT / 'configs/_base_/models/mask-rcnn_r18_fpn_small.py'
SMALL = Workload(height=96, width=128, rois=40, detections=6, positives=12, objects=4)


def small(name='fpn'):
    return find_model(name, base=BASE)


class TestWorkload:
    def test_sizes_and_numbers(self):
        workload = SMALL._replace(batch=2)
        assert workload.make_images().shape == (2, 3, 96, 128)
        for proposals, found in zip(workload.make_proposals(), workload.make_detections()):
            assert len(proposals) == 40 and len(found) == 6
            for boxes in (proposals.bboxes, found.bboxes):
                assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert not torch.equal(workload.make_detections()[0].bboxes, workload.make_detections()[1].bboxes)

    def test_boxes_lie_in_the_image_and_have_a_realistic_mix_of_sizes(self):
        workload = Workload()
        boxes = torch.cat([one.bboxes for one in workload._replace(batch=4).make_detections()])
        assert boxes.min() >= 0 and (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 480).all()
        edge = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        assert 14 < edge.min() < 25 and 200 < edge.max() < 310
        # log-uniform: as many from 15 to 67 px as from there to 300
        assert 0.4 < (edge < 67).float().mean() < 0.6

    @pytest.mark.parametrize('positives', [4, 12, 30])
    def test_as_many_proposals_match_an_object_as_were_asked_for(self, positives):
        workload = SMALL._replace(positives=positives)
        proposals, objects = workload.make_proposals()[0].bboxes, workload.make_samples()[0].gt_instances
        matching = bbox_overlaps(proposals, objects.bboxes).amax(1) >= 0.5
        assert matching.sum() + len(objects) == positives  # mmdet's sampler adds the objects themselves
        assert all(mask.sum() > 0 for mask in objects.masks.masks)

    def test_the_same_every_time(self):
        for one, other in zip(
            (SMALL.make_images(), SMALL.make_proposals()[0].bboxes),
            (SMALL.make_images(), SMALL.make_proposals()[0].bboxes),
        ):
            assert torch.equal(one, other)
        assert not torch.equal(SMALL.make_images(), SMALL._replace(seed=1).make_images())


@pytest.mark.parametrize('name', ['fpn', 'panet'])
def test_half_precision_on_the_cpu(name):
    """mmcv's RoIAlign and NMS take nothing but float32 there."""
    prepared = PreparedModel(small(name), SMALL, RunSettings(dtype='bfloat16'))
    exact = PreparedModel(small(name), SMALL, RunSettings())
    for mode in MODES:
        prepared.run(mode)
    loss, exact_loss = prepared.compute_loss().item(), exact.compute_loss().item()
    assert loss != exact_loss and loss == pytest.approx(exact_loss, rel=0.05)


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.gpu
def test_every_variant_runs_on_the_fixed_rois(name, device):
    """Box and mask heads see as many RoIs as were asked for, in inference and in training."""
    prepared = PreparedModel(small(name), SMALL, RunSettings(str(device)))
    roi_head, seen = prepared.module.roi_head, {}
    for branch in ('bbox', 'mask'):
        getattr(roi_head, f'{branch}_head').register_forward_pre_hook(
            lambda module, args, branch=branch: seen.update({branch: len(args[0])})
        )
    prepared.run('inference')
    assert seen == dict(bbox=40, mask=6)
    prepared.run('training')
    assert seen == dict(bbox=32, mask=12)  # 32 RoIs are sampled by the config, half of them positive at most
    sampling_ratio = roi_head.bbox_roi_extractor.roi_layers[0].sampling_ratio
    assert sampling_ratio == 2
    expected = {
        'bpa': PANetNeck,
        'panet': AdaptiveFeaturePooling,
        'fpn-fast': FastSingleRoIExtractor,
        'fpn-s2-fast': FastSingleRoIExtractor,
    }
    if name in expected:
        assert expected[name] in {type(module) for module in prepared.module.modules()}


def test_the_base_stays_as_configured():
    """mmdet's adaptive sampling is in the baseline, two samples in the variant beside it."""
    names = ('fpn', 'fpn-fast', 'fpn-s2', 'fpn-s2-fast')
    extractors = [find_model(name).cfg.model.roi_head.bbox_roi_extractor for name in names]
    assert [extractor.roi_layer.sampling_ratio for extractor in extractors] == [0, 0, 2, 2]
    assert [extractor.type for extractor in extractors] == ['SingleRoIExtractor', 'FastSingleRoIExtractor'] * 2
    plain = find_model('panet-plain').cfg.model.roi_head
    assert {plain.bbox_roi_extractor.backend, plain.mask_roi_extractor.backend} == {'roi_align'}


def test_a_training_step_is_the_same_every_time_and_moves_hardly_anything():
    prepared = PreparedModel(small(), SMALL, RunSettings())
    prepared.module.train()
    before = [parameter.clone() for parameter in prepared.module.parameters()]
    losses = [prepared.compute_loss().item() for _ in range(2)]
    assert losses[0] == losses[1]
    prepared.run('training')
    assert all(
        torch.allclose(parameter, old, atol=1e-5) for parameter, old in zip(prepared.module.parameters(), before)
    )


def test_config_paths_and_one_stage_models(tmp_path):
    cfg = Config.fromfile(BASE)
    file = tmp_path / 'mine.py'
    cfg.dump(file)
    assert find_model(str(file)).name == 'mine'
    retinanet = find_model('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    parts = seconds_by_part(PreparedModel(retinanet, SMALL, RunSettings()), 'inference')
    assert {'backbone', 'neck', 'box head'} <= set(parts)


@pytest.mark.parametrize(
    'name,error,message',
    [
        ('yolo', BenchmarkError, "'yolo' must be a config .* or one of fpn, fpn-s2"),
        ('no_such.py', ConfigError, 'no_such.py: no such file'),
        ('panet+jit', BenchmarkError, "'jit' must be one of channels_last, compile"),
    ],
)
def test_unknown_models_are_named(name, error, message):
    with pytest.raises(error, match=message):
        find_model(name)


def test_models_of_one_name_are_refused(tmp_path):
    """A table could not tell them apart, and the second took the place of the first."""
    models = [find_model('fpn'), find_model('panet'), find_model('fpn')]
    with pytest.raises(BenchmarkError, match="two models are named 'fpn'"):
        run_benchmark(models, ['inference'], Workload(64, 64, 1, 10), RunSettings())


def test_variants_need_what_they_change():
    with pytest.raises(BenchmarkError, match="model.type='RetinaNet' has no roi_head"):
        find_model('fpn-s2', base='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')


@pytest.mark.parametrize(
    'base', ['libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py']
)
def test_a_base_whose_neck_is_no_fpn(base):
    with pytest.raises(BenchmarkError, match='pafpn: the model of the base has no neck that is an FPN'):
        find_model('pafpn', base=f'mmdet::{base}')


@pytest.mark.parametrize(
    'counts, message',
    [
        (dict(positives=3), '3 positives must be 4 or more'),
        (dict(rois=8), '8 RoIs must be more than the 8 of them that match'),
    ],
)
def test_counts_that_the_rois_would_not_have(counts, message):
    with pytest.raises(BenchmarkError, match=message):
        run_benchmark([small('fpn')], ['training'], SMALL._replace(**counts), RunSettings(), 1)


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def advance(self, seconds):
        self.seconds += seconds


class TestMeasure:
    def test_order_and_times(self, monkeypatch):
        """On a machine that becomes slower with every call, and equally so for all functions."""
        clock, calls, said = Clock(), [], []
        monkeypatch.setattr(paired_times, 'perf_counter', clock)

        def function(name, seconds):
            calls.append(name)
            clock.advance(seconds + 0.01 * len(calls))

        functions = {'a': lambda: function('a', 1), 'b': lambda: function('b', 2), 'c': lambda: function('c', 3)}
        times = time_in_turns(functions, 2, CPU, said.append)
        assert ''.join(calls) == 'abccba' * 3
        # Of each round, calls 1 and 6, 2 and 5, 3 and 4 belong together, so all means are equally late.
        assert times == {
            name: pytest.approx([seconds + 0.095, seconds + 0.155]) for name, seconds in dict(a=1, b=2, c=3).items()
        }
        assert [line.partition(':')[0] for line in said] == ['warm-up', 'round 1/2', 'round 2/2']

    def test_a_drift_that_all_share_does_not_matter(self):
        drift = np.linspace(1, 3, 20)
        ratio = paired_ratio(1.5 * drift, drift)
        assert ratio == Ratio(1.5, 1.5, 1.5)

    def test_the_interval_holds_what_it_says(self):
        """Of many experiments with a known ratio about 95 % have it in their interval."""
        generator, inside = np.random.default_rng(0), 0
        for i in range(200):
            ratios = np.exp(generator.normal(0, 0.1, 15)) * 1.2
            ratio = paired_ratio(ratios, np.ones(15), seed=i)
            assert ratio.low <= ratio.median <= ratio.high
            inside += ratio.low <= 1.2 <= ratio.high
        assert 0.88 < inside / 200 < 0.99


class TestParts:
    def test_parts_add_up_and_leave_nothing_behind(self):
        prepared = PreparedModel(small('panet'), SMALL, RunSettings())
        hooks = [len(module._forward_hooks) for module in prepared.module.modules()]
        own = [dict(module.__dict__) for module in (prepared.module.rpn_head, prepared.module.roi_head.bbox_head)]
        ticks = iter(range(10**6))
        parts = count_by_part(prepared, 'training', lambda: next(ticks))
        # The counter grows by one with each reading, so each count belongs to one part.
        assert sum(parts.values()) == next(ticks) - 1
        forward = {'backbone', 'neck', 'RPN head', 'box pooling', 'box head', 'mask pooling', 'mask head'}
        assert set(parts) == forward | {f'{part}, backward' for part in forward} | {'optimizer', 'rest'}
        assert hooks == [len(module._forward_hooks) for module in prepared.module.modules()]
        assert [sorted(one) for one in own] == [
            sorted(module.__dict__) for module in (prepared.module.rpn_head, prepared.module.roi_head.bbox_head)
        ]

    @pytest.mark.skipif(not HAS_FLOP_COUNTER, reason='this torch has no counter of FLOPs')
    def test_flops_of_layers_that_can_be_counted_by_hand(self):
        prepared = PreparedModel(small('panet'), SMALL, RunSettings())
        flops = flops_by_part(prepared, 'inference')
        head = prepared.module.roi_head.bbox_head
        fc1 = 40 * 4 * 64 * 49 * 256
        others = 40 * (256 * 256 + 256 * (head.fc_cls.out_features + head.fc_reg.out_features))
        assert flops['box head'] == 2 * (fc1 + others)
        assert flops['box pooling'] == 0
        training = flops_by_part(prepared, 'training')
        assert training['box head, backward'] == 2 * training['box head']

    @pytest.mark.skipif(not HAS_FLOP_COUNTER, reason='this torch has no counter of FLOPs')
    def test_flops_do_not_depend_on_how_this_processor_convolves(self, monkeypatch):
        monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', 1)
        monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 0)
        flops = []
        for prefers_winograd in (True, False):
            monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', prefers_winograd)
            prepared = PreparedModel(small('panet'), SMALL, RunSettings())
            convolutions = prepared.module.roi_head.mask_head.modules()
            assert any(isinstance(one, FastConv2d) for one in convolutions) == prefers_winograd
            flops.append([flops_by_part(prepared, mode) for mode in ('inference', 'training')])
        assert flops[0] == flops[1] and flops[0][0]['mask head'] > 0


def test_benchmark_of_two_models():
    said = []
    models = [small('fpn'), small('bpa')]
    benchmark = run_benchmark(models, ['inference'], SMALL, RunSettings(), 1, memory=False, progress=said.append)
    fpn, bpa = benchmark.results
    assert (fpn.name, bpa.name, fpn.mode, bpa.mode) == ('fpn', 'bpa', 'inference', 'inference')
    assert fpn.ratio == Ratio(1.0, 1.0, 1.0) and bpa.ratio.median == bpa.seconds[0] / fpn.seconds[0]
    assert (bpa.flops > fpn.flops) == HAS_FLOP_COUNTER and bpa.parameters > fpn.parameters and fpn.memory is None
    cells = [line.split() for line in as_text(benchmark).splitlines() if line.split()[:1] == ['bpa']][0]
    assert cells.count('-') == (2 if HAS_FLOP_COUNTER else 4)
    assert {'backbone', 'neck', 'box head'} <= set(fpn.seconds_by_part)
    assert any(line.startswith('inference, round 1/1: fpn') for line in said)


def made_up_benchmark(settings=None, factor=1):
    def result(name, mode, seconds, memory):
        by_part = {'backbone': seconds / 4, 'neck': seconds / 4, 'rest': seconds / 2}
        flops = {'backbone': int(30e9 * factor), 'neck': int(seconds * 100e9), 'rest': 0}
        return ModelResult(
            name, mode, [seconds, 3 * seconds, seconds], Ratio(seconds, 0.5, 2.0), by_part, flops, 4_000_000, memory
        )

    results = [
        result(name, mode, seconds * factor, memory)
        for mode in ('inference', 'training')
        for name, seconds, memory in (('fpn', 1.0, 100 << 20), ('panet', 1.5, 150 << 20))
    ]
    return Benchmark(results, SMALL, settings or RunSettings(), dict(hardware='two cores', torch='2.0'))


def test_files_of_a_benchmark(tmp_path):
    benchmark = made_up_benchmark()
    files = write_benchmark(benchmark, tmp_path / 'out')
    assert [file.name for file in files] == [
        'benchmark.md',
        'benchmark.json',
        'benchmark.csv',
        'inference.png',
        'training.png',
    ]
    assert all(file.stat().st_size > 100 for file in files)
    with open(files[2]) as file:
        lines = list(csv.DictReader(file))
    content = json.loads(files[1].read_text())
    for line, result, entry in zip(lines, benchmark.results, content['rows']):
        assert line['model'] == result.name == entry['name']
        assert float(line['seconds']) == result.median_seconds and entry['seconds'] == result.seconds
        assert int(line['parameters']) == result.parameters and int(line['flops']) == result.flops
    assert content['environment']['hardware'] == 'two cores'
    tables = files[0].read_text()
    assert '| panet | 1.500 | 1.50 (0.50 to 2.00) | 3 | 150 | 1.50 | 4.0 | 180 | 1.38 |' in tables
    assert '| neck | 0.250 (100) | 0.375 (150) |' in tables and '| sum | 1.000 (130) | 1.500 (180) |' in tables
    text = as_text(benchmark)
    assert '1 x 96 x 128, 40 RoIs and 6 detections per image' in text and 'two cores, torch 2.0' in text
    with_images = made_up_benchmark(RunSettings(images=('a.jpg', 'b.jpg'), rois_per_chunk=7))
    assert as_text(with_images).startswith('2 images, 1 per batch') and 'rois_per_chunk=7' in as_text(with_images)


def test_sweep_changes_one_number(monkeypatch):
    seen = []
    monkeypatch.setattr(run, 'run_benchmark', lambda models, modes, *rest: seen.append(rest[:2]))
    for swept in SWEEPABLE:
        list(run_sweep(swept, [192], [], [], SMALL, RunSettings()))
    assert seen == [
        (SMALL._replace(rois=192), RunSettings()),
        (SMALL._replace(height=192, width=256), RunSettings()),
        (SMALL._replace(batch=192), RunSettings()),
        (SMALL, RunSettings(rois_per_chunk=192)),
    ]


def test_swept_sizes_are_those_that_were_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(run, 'run_benchmark', lambda models, modes, *rest: seen.append(rest[0][:2]))
    list(run_sweep('size', [96, 160], [], [], SMALL._replace(height=96, width=136), RunSettings()))
    assert seen == [(96, 128), (160, 224)]  # 136 and 226.7, in multiples of 32
    with pytest.raises(ConfigError, match='--sweep size 96 100: sizes must be multiples of 32'):
        list(run_sweep('size', [96, 100], [], [], SMALL, RunSettings()))
    assert len(seen) == 2


def test_files_of_a_sweep(tmp_path):
    files = write_sweep('rois', [(20, made_up_benchmark()), (40, made_up_benchmark(factor=2))], tmp_path)
    assert [file.name for file in files] == ['rois.json', 'rois_inference.png', 'rois_training.png']
    assert [(one['value'], one['rows'][0]['median']) for one in json.loads(files[0].read_text())] == [(20, 1), (40, 2)]
    assert files[1].stat().st_size > 5000


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='the system does not tell')
def test_peak_memory_counts_the_tensors_of_a_run():
    """Most of it are the pooled features, which are known; the rest are parameters and smaller maps."""
    workload = SMALL._replace(rois=4500)
    features, parameters = 4500 * 64 * 49 * 4, 4_000_000 * 4
    memory = peak_memory(small(), workload, RunSettings(), 'inference')
    assert 0.9 * features + parameters < memory < 3 * features + parameters


@pytest.mark.parametrize('name', ['fpn+channels_last', 'panet+channels_last'])
@pytest.mark.gpu
def test_channels_last_gives_the_same(name, device):
    prepared, expected = (
        PreparedModel(small(name), SMALL, RunSettings(str(device))),
        PreparedModel(small(name.partition('+')[0]), SMALL, RunSettings(str(device))),
    )
    assert prepared.batches[0][0].is_contiguous(memory_format=torch.channels_last)
    expected.module.load_state_dict(prepared.module.state_dict())
    outputs = []
    for one in (prepared, expected):
        for branch in ('bbox', 'mask'):
            getattr(one.module.roi_head, f'{branch}_head').register_forward_hook(
                lambda module, args, output: outputs.append(output[0])
            )
        one.run('inference')
    for one, other in zip(outputs[:2], outputs[2:]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_compile_is_asked_for(monkeypatch):
    compiled = []
    monkeypatch.setattr(
        torch.nn.Module, 'compile', lambda module, **kwargs: compiled.append(type(module).__name__), raising=False
    )
    PreparedModel(small('panet+compile'), SMALL, RunSettings())
    assert compiled == ['ResNet', 'PANetNeck', 'PANetShared2FCBBoxHead', 'FCFusionMaskHead']
    monkeypatch.delattr(torch.nn.Module, 'compile')
    with pytest.raises(BenchmarkError, match=r'panet\+compile: torch .* cannot compile'):
        PreparedModel(small('panet+compile'), SMALL, RunSettings())


def test_images_and_checkpoints(tmp_path):
    """Images are read as in testing, and each model works on its own proposals and detections."""
    mmcv.imwrite(np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8), str(tmp_path / 'b.png'))
    mmcv.imwrite(np.random.randint(0, 256, (90, 50, 3), dtype=np.uint8), str(tmp_path / 'a.jpg'))
    files = tuple(map(str, find_images([tmp_path])))
    assert [Path(file).name for file in files] == ['a.jpg', 'b.png']
    config = 'configs/shapes/mask-rcnn_r18_fpn_shapes.py'
    model = build(find_model(str(ROOT / config)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    one = find_model(str(ROOT / config), str(tmp_path / 'model.pth'))
    prepared = PreparedModel(one, SMALL, RunSettings(images=files))
    assert [tuple(images.shape[-2:]) for images, _ in prepared.batches] == [(96, 64), (64, 96)]
    assert all(torch.equal(a, b) for a, b in zip(prepared.module.state_dict().values(), model.state_dict().values()))
    results = prepared.infer()
    assert [sample.metainfo['ori_shape'] for sample in results] == [(90, 50), (60, 80)]
    assert all('masks' in sample.pred_instances for sample in results)


def test_pooling_alone():
    results = run_pooling_benchmark(SMALL, channels=8, rounds=2)
    assert [(result.form, result.direction) for result in results] == [
        (form, direction)
        for form in ('every level', 'its own level', 'every level, rotated')
        for direction in ('forward', 'backward')
    ]
    for result in results:
        assert result.difference < 1e-4 * result.magnitude and result.magnitude > 0.1
        assert len(result.mmcv_seconds) == len(result.mmpanet_seconds) == 2
        assert result.speedup == paired_ratio(result.mmcv_seconds, result.mmpanet_seconds)  # above 1: ours is faster
    known = results[0]._replace(mmcv_seconds=[1, 3, 2], mmpanet_seconds=[1, 1, 1], speedup=Ratio(2.0, 1.0, 3.0))
    lines = pooling_text([known], SMALL, 7, 8, 2, dict(hardware='two cores', torch='2.0')).splitlines()
    assert lines[:2] == ['two cores, torch 2.0', '1 x 96 x 128, 40 RoIs, 7 x 7, 8 channels, sampling_ratio=2']
    assert lines[4].split()[:5] == ['every', 'level', 'forward', '2.000', '1.000']


def test_a_model_of_one_class_trains():
    """The objects of the workload have a class that every model has."""
    model = small('panet')
    for head in (model.cfg.model.roi_head.bbox_head, model.cfg.model.roi_head.mask_head):
        head.num_classes = 1
    loss = PreparedModel(model, SMALL, RunSettings()).compute_loss()
    assert torch.isfinite(loss) and loss > 0


@pytest.mark.skipif(not HAS_FLOP_COUNTER, reason='this torch has no counter of FLOPs')
def test_compiled_code_is_not_called_while_arithmetic_is_counted(monkeypatch):
    """torch skips compiled code for good if it is called within a dispatch mode."""
    calls = []

    def compile_part(part, **kwargs):
        part._compiled_call_impl = lambda *args, **kwargs: calls.append(part) or part._call_impl(*args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, 'compile', compile_part, raising=False)
    model = PreparedModel(small('panet+compile'), SMALL, RunSettings())
    model.run('inference')
    num_calls = len(calls)
    flops = flops_by_part(model, 'inference')
    assert num_calls >= 4 and len(calls) == num_calls and sum(flops.values()) > 0
    model.run('inference')
    assert len(calls) == 2 * num_calls


def test_compiled_models_have_no_times_by_part(monkeypatch):
    """torch does not call the hooks of parts that were compiled before."""
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda module, **kwargs: None, raising=False)
    models = [small('panet'), small('panet+compile')]
    found = run_benchmark(models, ['inference'], SMALL, RunSettings(), rounds=1, memory=False)
    plain, compiled = found.results
    assert plain.seconds_by_part and not compiled.seconds_by_part and compiled.flops == plain.flops
    costs, parts = (one for one in as_text(found).split('\n\n') if one.startswith('inference'))
    assert 'panet+compile' in costs and 'panet+compile' not in parts


def test_what_the_command_line_hands_on(tmp_path, monkeypatch):
    def stop(*args):
        seen.append(args)
        raise BenchmarkError('enough')

    seen = []
    for name in ('run_benchmark', 'run_sweep'):
        monkeypatch.setattr(run, name, stop)
    words = ['fpn', 'panet', '--base', BASE, '--out', tmp_path, '--size', 96, 128, '--batch', 2, '--rois', 40]
    words += ['--detections', 6, '--positives', 12, '--rois-per-chunk', 7, '--rounds', 3, '--no-memory']
    for more in (['--mode', 'training', '--dtype', 'float16'], ['--sweep', 'rois', 20, 30]):
        with pytest.raises(SystemExit, match='enough'):
            run_tool('benchmark', *words, *more)
    (models, modes, workload, settings, rounds, memory, _), swept = seen
    assert [model.name for model in models] == ['fpn', 'panet'] and list(modes) == ['training']
    assert workload == Workload(96, 128, 2, 40, 6, 12) and settings == RunSettings('cpu', 'float16', 7)
    assert rounds == 3 and memory is False
    assert swept[0] == 'rois' and list(swept[1]) == [20, 30]


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='the system does not tell')
def test_memory_of_a_config_with_modules_of_its_own(tmp_path, monkeypatch):
    """The process that measures it imports them. Where it fails, the times stay."""
    (tmp_path / 'backbone_with_a_module.py').write_text(
        'from mmdet.models import ResNet\nfrom mmdet.registry import MODELS\n\n\n'
        '@MODELS.register_module(force=True)\nclass BackboneWithAModule(ResNet):\n    pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = small()
    model.cfg.custom_imports = dict(imports=['backbone_with_a_module'], allow_failed_imports=False)
    model.cfg.model.backbone.type = 'BackboneWithAModule'
    importlib.import_module('backbone_with_a_module')
    said = []
    [result] = run_benchmark([model], ['inference'], SMALL, RunSettings(), 1, progress=said.append).results
    assert result.memory > 0
    model.cfg.custom_imports = None
    [result] = run_benchmark([model], ['inference'], SMALL, RunSettings(), 1, progress=said.append).results
    assert result.memory is None and result.seconds and 'warning: fpn: the process that measures' in said[-1]


def test_memory_is_left_out_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, 'RESET_OF_PEAK', tmp_path / 'nothing')
    assert peak_memory(small(), SMALL, RunSettings(), 'inference') is None
    status = tmp_path / 'status'
    status.write_text('Name: python\n')
    monkeypatch.setattr(measure, 'RESET_OF_PEAK', status)
    monkeypatch.setattr(measure, 'PROCESS_STATUS', status)
    assert peak_memory(small(), SMALL, RunSettings(), 'inference') is None


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    torch.save(dict(state_dict=build(small('panet')).state_dict()), tmp_path / 'panet.pth')
    with pytest.raises(BenchmarkError, match=r'panet\.pth is no checkpoint of fpn: '):
        build(small()._replace(checkpoint=str(tmp_path / 'panet.pth')))
