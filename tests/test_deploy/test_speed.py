# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What is timed: detectors with random weights that detect as much as trained ones, in PyTorch and as graphs."""

import re
import sys

import pytest
import torch
from small_detectors import FPN, PANET
from tiny_training import run_tool

from mmpanet.deploy import ExportError
from mmpanet.deploy.speed import CANDIDATES, make_scores_spread, torchvision_detector
from mmpanet.utils import paired_times
from mmpanet.utils.paired_times import time_in_turns

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

SMALL = """
_base_ = {base!r}
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=[8, 16, 32, 64]),
    roi_head=dict(bbox_head=dict(num_classes=5), mask_head=dict(num_classes=5)))
"""


@pytest.fixture
def configs(tmp_path):
    for name, base in (('fpn', FPN), ('panet', PANET)):
        (tmp_path / f'{name}.py').write_text(SMALL.format(base=str(base)))
    return tmp_path / 'fpn.py', tmp_path / 'panet.py'


def test_all_detectors_of_the_table_find_as_many_objects(configs, tmp_path, capsys, monkeypatch):
    def times(functions, *args, **kwargs):
        """Run everything, and say that the first one takes 1 and 3 s, the second one 2 and 4 s, and so on."""
        time_in_turns(functions, *args, **kwargs)
        return {name: [1.0 + place, 3.0 + place] for place, name in enumerate(functions)}

    monkeypatch.setattr(paired_times, 'time_in_turns', times)
    words = ['--size', 96, 128, '--proposals', 60, 40, '--detections', 12, '--rounds', 2, '--out', tmp_path / 'out']
    run_tool('benchmark_runtimes', *configs, *words)
    row = r'\| (\w+), (\d+) proposals, (PyTorch|onnxruntime) \| ([\d.]+) \| ([\d.]+) \(.*\) \| (\d+) \|'
    rows = re.findall(row, capsys.readouterr().out)
    assert [row[:3] for row in rows] == [
        ('fpn', '60', 'PyTorch'),
        ('fpn', '60', 'onnxruntime'),
        ('panet', '40', 'PyTorch'),
        ('panet', '40', 'onnxruntime'),
    ]
    assert [int(found) for *_, found in rows] == [12] * 4
    assert [row[3] for row in rows] == ['2.000', '3.000', '4.000', '5.000']
    assert [row[4] for row in rows] == ['1.00', '1.67', '2.33', '3.00']  # of 2 and 4/3, 3 and 5/3, 4 and 2


@pytest.mark.parametrize('key,values', [('proposals', [1, 2, 3]), ('checkpoints', ['a.pth'])])
def test_one_value_per_model_or_one_for_all(capsys, key, values):
    with pytest.raises(SystemExit):
        run_tool('benchmark_runtimes', 'fpn', 'panet', f'--{key}', *values)
    assert f'--{key}: 2 models need as many, not {len(values)}' in capsys.readouterr().err


def test_a_one_stage_detector_needs_a_checkpoint(tmp_path):
    with pytest.raises(SystemExit, match='a RetinaNet'):
        run_tool('benchmark_runtimes', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--out', tmp_path)


def test_spread_scores_pass_the_threshold_in_the_number_that_was_asked_for():
    layer, rois = torch.nn.Linear(16, 6), torch.randn(300, 16)
    threshold = make_scores_spread(layer, lambda: layer(rois), background=-1)
    logits = layer(rois)
    assert logits.std().item() == pytest.approx(3, rel=0.01)
    assert (logits.softmax(1)[:, :-1] >= threshold).sum() == CANDIDATES
    assert not layer._forward_hooks


def test_torchvision_is_named_if_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    monkeypatch.setitem(sys.modules, 'torchvision.models', None)
    with pytest.raises(ExportError, match='torchvision is not installed: pip install torchvision'):
        torchvision_detector('maskrcnn_resnet50_fpn', torch.zeros(3, 64, 64, dtype=torch.uint8), 10, 5)


def test_torchvision_is_named_if_it_is_built_for_another_torch(tmp_path, monkeypatch):
    (tmp_path / 'torchvision').mkdir()
    (tmp_path / 'torchvision' / '__init__.py').write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition('.')[0] == 'torchvision']:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        ExportError, match='torchvision does not fit torch .*: operator torchvision::nms does not exist'
    ):
        torchvision_detector('maskrcnn_resnet50_fpn', torch.zeros(3, 64, 64, dtype=torch.uint8), 10, 5)
