# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``make gpu``: its steps run on the CPU here."""

import json
import re
import sys

import pytest
from repository import ROOT

if not (ROOT / '.dev_scripts').is_dir():
    pytest.skip('only a checkout has .dev_scripts', allow_module_level=True)
import gpu
import torch


def row(form, direction, mmcv, mmpanet):
    return dict(form=form, direction=direction, mmcv_seconds=mmcv, mmpanet_seconds=mmpanet)


def run_main(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['gpu.py', *map(str, words)])
    gpu.main()


def test_the_faster_backend_is_chosen():
    rows = [row('every level', 'forward', [3, 1, 2], [1, 1, 1]), row('every level', 'backward', [1, 5, 2], [2, 2, 2])]
    times = gpu.pooling_times(rows)
    assert times == [
        gpu.PoolingTime('every level', 'inference', roi_align=2, embedding_bag=1),
        gpu.PoolingTime('every level', 'training', roi_align=4, embedding_bag=3),  # the median of 4, 6 and 4
    ]
    assert gpu.choose_backend(times) == 'embedding_bag'
    slower = gpu.PoolingTime('its own level', 'training', roi_align=1, embedding_bag=2)
    assert gpu.choose_backend([slower]) == 'roi_align'
    assert gpu.choose_backend([times[0], slower]) == (
        'embedding_bag (every level, inference), roi_align (its own level, training)'
    )


@pytest.mark.parametrize('found', ['12.1', 'not available'])
def test_an_mmcv_without_cuda_operators_is_replaced(monkeypatch, found):
    calls = []
    monkeypatch.setattr(gpu, 'run', lambda script, *words: calls.append(words))
    monkeypatch.setattr(gpu, 'operators', lambda: found)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(sys, 'argv', ['gpu.py', '--device', 'cuda:1'])
    gpu.install_mmcv(gpu.parse_args())
    assert calls == [()] + [('--cuda', '--force')] * (found == 'not available')


def test_every_step_is_taken_when_one_fails(monkeypatch, tmp_path):
    def fail(*words, **variables):
        raise gpu.StepError('it broke')

    monkeypatch.setattr(gpu, 'run', fail)
    with pytest.raises(SystemExit, match='not everything is well in mmcv, tests, pooling, models'):
        run_main(monkeypatch, '--device', 'cpu', '--out', tmp_path)
    report = (tmp_path / 'report.md').read_text()
    assert [line for line in report.splitlines() if line.startswith('## ')] == [f'## {step}' for step in gpu.STEPS]
    assert report.count('- **it broke**') == 3 + len(gpu.DTYPES)


def test_a_device_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='--device cuda: torch .* finds no GPU'):
        run_main(monkeypatch, '--out', tmp_path)


@pytest.mark.slow
def test_all_steps_on_the_cpu(monkeypatch, tmp_path):
    words = ['--device', 'cpu', '--out', tmp_path, '--models', 'fpn', 'panet', '--dtypes', 'float32']
    words += ['--size', 64, 96, '--rois', 80, '--rounds', 1]
    run_main(monkeypatch, *words, '--pytest', ROOT / 'tests/test_models/test_fast_single_roi_extractor.py')
    report = (tmp_path / 'report.md').read_text()
    choice = json.loads((tmp_path / 'auto.json').read_text())['choice']
    assert 'CUDA operators of mmcv: not available' in report
    assert re.search(r'^[1-9]\d+ passed, 0 failed, 0 skipped\.$', report, re.MULTILINE)
    assert '| every level | training |' in report and f': {choice}.' in report
    assert '### float32' in report and '| panet | ' in report
