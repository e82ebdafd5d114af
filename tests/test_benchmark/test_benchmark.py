# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import csv
import json
import time
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from repository import ROOT

from mmdet.structures.bbox import bbox_overlaps
from mmpanet.benchmark import report
from mmpanet.benchmark.contenders import VARIANTS, Contender, build, contender
from mmpanet.benchmark.cost import peak_memory
from mmpanet.benchmark.measure import Ratio, interleave, paired_ratio
from mmpanet.benchmark.parts import by_part, flops_by_part, seconds_by_part
from mmpanet.benchmark.pooling import benchmark_pooling
from mmpanet.benchmark.run import run_benchmark
from mmpanet.benchmark.subject import Setting, Subject, image_files
from mmpanet.benchmark.workload import Workload
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor, PANetNeck
from mmpanet.swap import SwapError

CPU = torch.device('cpu')
BASE = ROOT / 'configs/_base_/models/mask-rcnn_r18_fpn_small.py'
SMALL = Workload(height=96, width=128, rois=40, detections=6, positives=12, objects=4)


def small(name='fpn') -> Contender:
    return contender(name, base=BASE)


class TestWorkload:
    def test_sizes_and_numbers(self):
        workload = SMALL._replace(batch=2)
        assert workload.images().shape == (2, 3, 96, 128)
        for proposals, found in zip(workload.proposals(), workload.found()):
            assert len(proposals) == 40 and len(found) == 6
            for boxes in (proposals.bboxes, found.bboxes):
                assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert not torch.equal(workload.found()[0].bboxes, workload.found()[1].bboxes)

    def test_boxes_lie_in_the_image_and_have_a_realistic_mix_of_sizes(self):
        workload = Workload()
        boxes = torch.cat([one.bboxes for one in workload._replace(batch=4).found()])
        assert boxes.min() >= 0 and (boxes[:, 2] <= 640).all() and (boxes[:, 3] <= 480).all()
        edge = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        assert 14 < edge.min() < 25 and 200 < edge.max() < 310
        # log-uniform: as many from 15 to 67 px as from there to 300
        assert 0.4 < (edge < 67).float().mean() < 0.6

    @pytest.mark.parametrize('positives', [4, 12, 30])
    def test_as_many_proposals_match_an_object_as_were_asked_for(self, positives):
        workload = SMALL._replace(positives=positives)
        proposals, objects = workload.proposals()[0].bboxes, workload.samples()[0].gt_instances
        matching = bbox_overlaps(proposals, objects.bboxes).amax(1) >= 0.5
        assert matching.sum() + len(objects) == positives  # mmdet's sampler adds the objects themselves
        assert all(mask.sum() > 0 for mask in objects.masks.masks)

    def test_the_same_every_time(self):
        for one, other in zip(
            (SMALL.images(), SMALL.proposals()[0].bboxes), (SMALL.images(), SMALL.proposals()[0].bboxes)
        ):
            assert torch.equal(one, other)
        assert not torch.equal(SMALL.images(), SMALL._replace(seed=1).images())


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_runs_on_the_pinned_rois(name):
    """Box and mask heads see just as many RoIs as were asked for, in inference and in training."""
    subject = Subject(small(name), SMALL, Setting())
    roi_head, seen = subject.model.roi_head, {}
    for branch in ('bbox', 'mask'):
        getattr(roi_head, f'{branch}_head').register_forward_pre_hook(
            lambda module, args, branch=branch: seen.update({branch: len(args[0])})
        )
    subject.run('inference')
    assert seen == dict(bbox=40, mask=6)
    subject.run('training')
    assert seen == dict(bbox=32, mask=12)  # 32 RoIs are sampled by the config, half of them positive at most
    sampling_ratio = roi_head.bbox_roi_extractor.roi_layers[0].sampling_ratio
    assert sampling_ratio == 2
    expected = {'bpa': PANetNeck, 'panet': AdaptiveFeaturePooling, 'fpn-s2-fast': FastSingleRoIExtractor}
    if name in expected:
        assert expected[name] in {type(module) for module in subject.model.modules()}


def test_the_base_stays_as_configured():
    """mmdet's adaptive sampling is in the baseline, two samples in the variant beside it."""
    extractors = [contender(name).cfg.model.roi_head.bbox_roi_extractor for name in ('fpn', 'fpn-s2')]
    assert [extractor.roi_layer.sampling_ratio for extractor in extractors] == [0, 2]
    plain = contender('panet-plain').cfg.model.roi_head
    assert {plain.bbox_roi_extractor.backend, plain.mask_roi_extractor.backend} == {'roi_align'}


def test_a_training_step_is_the_same_every_time_and_moves_hardly_anything():
    subject = Subject(small(), SMALL, Setting())
    subject.model.train()
    before = [parameter.clone() for parameter in subject.model.parameters()]
    losses = [subject.forward_loss().item() for _ in range(2)]
    assert losses[0] == losses[1]
    subject.run('training')
    assert all(torch.allclose(parameter, old, atol=1e-5) for parameter, old in zip(subject.model.parameters(), before))


def test_config_paths_and_one_stage_models(tmp_path):
    cfg = Config.fromfile(BASE)
    file = tmp_path / 'mine.py'
    cfg.dump(file)
    assert contender(str(file)).name == 'mine'
    retinanet = contender('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    parts = seconds_by_part(Subject(retinanet, SMALL, Setting()), 'inference')
    assert {'backbone', 'neck', 'box head'} <= set(parts)


@pytest.mark.parametrize(
    'name,message',
    [('yolo', "'yolo' is neither a config .* nor one of fpn, fpn-s2"), ('no_such.py', 'there is no config no_such.py')],
)
def test_unknown_models_are_named(name, message):
    with pytest.raises(SwapError, match=message):
        contender(name)


def test_variants_need_what_they_change():
    with pytest.raises(SwapError, match="model.type='RetinaNet' has no roi_head"):
        contender('fpn-s2', base='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')


class TestMeasure:
    def test_order_and_counts(self):
        calls = []
        functions = {name: (lambda name=name: calls.append(name)) for name in 'abc'}
        times = interleave(functions, rounds=2, device=CPU, warmup=1)
        assert ''.join(calls) == 'abccba' * 3
        assert {name: len(seconds) for name, seconds in times.items()} == dict(a=2, b=2, c=2)

    def test_times(self):
        times = interleave({'slow': lambda: time.sleep(0.03), 'fast': lambda: time.sleep(0.01)}, 3, CPU)
        ratio = paired_ratio(times['slow'], times['fast'])
        assert 2 < ratio.median < 4 and min(times['slow']) >= 0.03

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
        subject = Subject(small('panet'), SMALL, Setting())
        hooks = [len(module._forward_hooks) for module in subject.model.modules()]
        own = [dict(module.__dict__) for module in (subject.model.rpn_head, subject.model.roi_head.bbox_head)]
        ticks = iter(range(10**6))
        parts = by_part(subject, 'training', lambda: next(ticks))
        # a counter that grows by one a reading: every part was read, none twice
        assert sum(parts.values()) == next(ticks) - 1
        forward = {'backbone', 'neck', 'RPN head', 'box pooling', 'box head', 'mask pooling', 'mask head'}
        assert set(parts) == forward | {f'{part}, backward' for part in forward} | {'optimizer', 'rest'}
        assert hooks == [len(module._forward_hooks) for module in subject.model.modules()]
        assert [sorted(one) for one in own] == [
            sorted(module.__dict__) for module in (subject.model.rpn_head, subject.model.roi_head.bbox_head)
        ]

    def test_flops_of_layers_that_can_be_counted_by_hand(self):
        subject = Subject(small('panet'), SMALL, Setting())
        flops = flops_by_part(subject, 'inference')
        head = subject.model.roi_head.bbox_head
        fc1 = 40 * 4 * 64 * 49 * 256
        others = 40 * (256 * 256 + 256 * (head.fc_cls.out_features + head.fc_reg.out_features))
        assert flops['box head'] == 2 * (fc1 + others)
        assert flops['box pooling'] == 0
        training = flops_by_part(subject, 'training')
        # twice the forward, less the gradients to what is not trained
        assert training['box head, backward'] == 2 * training['box head']


def test_a_whole_benchmark_with_its_files(tmp_path):
    contenders = [small('fpn'), small('panet')]
    said = []
    benchmark = run_benchmark(
        contenders, ['inference', 'training'], SMALL, Setting(), rounds=2, memory=False, progress=said.append
    )
    assert [(row.mode, row.name) for row in benchmark.rows] == [
        (mode, name) for mode in ('inference', 'training') for name in ('fpn', 'panet')
    ]
    assert benchmark.rows[0].ratio == Ratio(1.0, 1.0, 1.0)
    assert any('round 2/2' in line for line in said)
    files = report.write(benchmark, tmp_path)
    assert sorted(file.name for file in files) == [
        'benchmark.csv',
        'benchmark.json',
        'benchmark.md',
        'inference.png',
        'training.png',
    ]
    assert all(file.stat().st_size > 100 for file in files)
    with open(tmp_path / 'benchmark.csv') as file:
        lines = list(csv.DictReader(file))
    content = json.loads((tmp_path / 'benchmark.json').read_text())
    for line, row, entry in zip(lines, benchmark.rows, content['rows']):
        assert line['model'] == row.name == entry['name']
        assert float(line['seconds']) == pytest.approx(row.median) and entry['seconds'] == row.seconds
        assert int(line['parameters']) == row.parameters and int(line['flops']) == row.flops
    text = report.text(benchmark)
    assert f'{benchmark.rows[1].median:.3f}' in text and 'threads' in text and 'torch' in text
    table = [line for line in report.markdown(benchmark).splitlines() if line.startswith('|')]
    assert all(line.count('|') == table[0].count('|') for line in table[:4])


@pytest.mark.skipif(not Path('/proc/self/clear_refs').exists(), reason='the system does not tell')
def test_peak_memory_counts_the_tensors_of_a_run():
    """More RoIs need the more memory that their features take, and a larger model that of its parameters."""
    workload = SMALL._replace(rois=500)
    few, many = (peak_memory(small(), workload._replace(rois=rois), Setting(), 'inference') for rois in (500, 4500))
    features = 4000 * 64 * 49 * 4
    assert features * 0.9 < many - few < features * 4


@pytest.mark.parametrize('name', ['fpn+channels_last', 'panet+channels_last'])
def test_channels_last_gives_the_same(name):
    subject, expected = Subject(small(name), SMALL, Setting()), Subject(small(name.partition('+')[0]), SMALL, Setting())
    assert subject.batches[0][0].is_contiguous(memory_format=torch.channels_last)
    expected.model.load_state_dict(subject.model.state_dict())
    outputs = []
    for one in (subject, expected):
        for branch in ('bbox', 'mask'):
            getattr(one.model.roi_head, f'{branch}_head').register_forward_hook(
                lambda module, args, output: outputs.append(output[0])
            )
        one.run('inference')
    for one, other in zip(outputs[:2], outputs[2:]):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_compile_is_asked_for(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda module, **kwargs: compiled.append(type(module).__name__))
    Subject(small('panet+compile'), SMALL, Setting())
    assert compiled == ['ResNet', 'PANetNeck', 'PANetShared2FCBBoxHead', 'FCFusionMaskHead']
    with pytest.raises(SwapError, match="'jit' must be one of channels_last, compile"):
        small('panet+jit')


def test_images_and_checkpoints(tmp_path):
    """Read as in testing; the models work on what they find themselves."""
    mmcv.imwrite(np.random.randint(0, 256, (60, 80, 3), dtype=np.uint8), str(tmp_path / 'b.png'))
    mmcv.imwrite(np.random.randint(0, 256, (90, 50, 3), dtype=np.uint8), str(tmp_path / 'a.jpg'))
    with pytest.raises(SwapError, match='holds no image'):
        image_files(tmp_path / 'none')
    files = image_files(tmp_path)
    assert [Path(file).name for file in files] == ['a.jpg', 'b.png']
    config = 'configs/shapes/mask-rcnn_r18_fpn_shapes.py'
    model = build(contender(str(ROOT / config)))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    one = contender(str(ROOT / config), str(tmp_path / 'model.pth'))
    subject = Subject(one, SMALL, Setting(images=files))
    assert [tuple(images.shape[-2:]) for images, _ in subject.batches] == [(96, 64), (64, 96)]
    assert all(torch.equal(a, b) for a, b in zip(subject.model.state_dict().values(), model.state_dict().values()))
    results = subject.infer()
    assert [sample.metainfo['ori_shape'] for sample in results] == [(90, 50), (60, 80)]
    assert all('masks' in sample.pred_instances for sample in results)
    benchmark = run_benchmark([one], ['inference'], SMALL, Setting(images=files), rounds=1, memory=False)
    assert 'images' in report.text(benchmark)


def test_pooling_alone():
    rows = benchmark_pooling(SMALL, channels=8, rounds=2)
    assert [(row.form, row.direction) for row in rows] == [
        (form, direction) for form in ('every level', 'its own level') for direction in ('forward', 'backward')
    ]
    for row in rows:
        assert row.difference < 1e-4 * row.magnitude and row.magnitude > 0.1
        assert [len(seconds) for seconds in row.seconds] == [2, 2]
