# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import os
from datetime import datetime

import pytest
from repository import ROOT
from tiny_training import run_tool

from mmpanet.evaluation.run_comparison import shortest_names
from mmpanet.evaluation.run_log import RunLog, total_seconds
from mmpanet.evaluation.run_report import run_report

CONFIG = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_panet_shapes.py'


def write_log(folder, time, *lines):
    file = folder / time / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(json.dumps(line) for line in lines) + '\n{"loss": 0.1, "it')


@pytest.fixture
def runs(tmp_path):
    """Two work folders; the second was resumed in the middle, with iterations trained again."""
    fpn, panet = tmp_path / 'fpn', tmp_path / 'panet'
    write_log(
        fpn,
        '20260101_000000',
        dict(loss=3.0, time=0.5, iter=10, memory=1024),
        {'coco/bbox_mAP': 0.2, 'coco/segm_mAP': 0.30, 'step': 1},
        dict(loss=1.0, time=0.7, iter=20, memory=2048),
        {'coco/bbox_mAP': 0.1, 'coco/segm_mAP': 0.31, 'coco/segm_mAP_l': -1, 'step': 2},
    )
    write_log(panet, '20260101_000000', dict(loss=3.0, time=0.6, iter=10), dict(loss=9.0, time=0.8, iter=20))
    write_log(
        panet,
        '20260102_000000',
        dict(loss=1.0, time=0.8, iter=20),
        dict(loss=0.5, time=0.8, iter=30),
        {'coco/bbox_mAP': 0.15, 'coco/segm_mAP': 0.4, 'step': 3},
    )
    (panet / CONFIG.name).write_text(CONFIG.read_text().replace("'./", f"'{CONFIG.parent}/"))
    return [fpn, panet]


def test_log_of_a_run_that_was_resumed(runs):
    log = RunLog.read(runs[1])
    assert [(step['iter'], step['loss']) for step in log.steps] == [(10, 3.0), (20, 1.0), (30, 0.5)]
    assert log.seconds_per_step == 0.8 and log.peak_memory is None
    assert [one.iteration for one in log.evaluations] == [30]
    assert [one.iteration for one in RunLog.read(runs[0]).evaluations] == [10, 20]
    assert 'segm_mAP_l' not in RunLog.read(runs[0]).evaluations[-1].metrics


def test_a_run_that_began_anew_is_not_read_with_the_one_before(runs):
    """The older training was longer. What it logged beyond the newer one is not of the newer one."""
    write_log(
        runs[0],
        '20260103_000000',
        dict(loss=2.0, time=0.5, iter=10),
        {'coco/bbox_mAP': 0.05, 'coco/segm_mAP': 0.06, 'step': 1},
    )
    log = RunLog.read(runs[0])
    assert [step['loss'] for step in log.steps] == [2.0]
    assert [one.metrics['bbox_mAP'] for one in log.evaluations] == [0.05]


def test_the_report_names_the_newest_checkpoint(runs):
    for number, name in enumerate(('epoch_2.pth', 'epoch_9.pth', 'epoch_10.pth')):
        (runs[0] / name).touch()
        os.utime(runs[0] / name, (1000, 1000 + number))
    assert 'epoch_10.pth' in run_report(runs[0])
    (runs[0] / 'last_checkpoint').write_text('/elsewhere/epoch_9.pth')
    assert 'epoch_9.pth' in run_report(runs[0])


def test_the_report_doubts_a_checkpoint_of_a_later_start(runs):
    (runs[0] / 'epoch_1.pth').touch()
    assert 'may be of the start' not in run_report(runs[0])
    write_log(runs[0], '20260103_000000', dict(loss=2.0, time=0.5, iter=10))
    report = run_report(runs[0])
    assert 'box AP' in report and 'epoch_1.pth  (may be of the start 20260103_000000, which' in report


def test_evaluations_between_two_lines_of_the_log_are_all_there(tmp_path):
    """Epochs may be shorter than the interval of the log, and a training that counts iterations has no epochs."""
    scores = [{'coco/bbox_mAP': value, 'step': step} for step, value in enumerate((0.1, 0.2, 0.3))]
    write_log(
        tmp_path / 'epochs', '20260101_000000', *scores[:2], dict(loss=1.0, time=1.0, iter=50, epoch=2), scores[2]
    )
    by_epoch = RunLog.read(tmp_path / 'epochs').evaluations
    assert [(one.epoch, one.metrics['bbox_mAP']) for one in by_epoch] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    # mmengine writes the epoch as the step, which IterBasedTrainLoop leaves at 0.
    first, second = dict(loss=1.0, time=1.0, iter=50), dict(loss=1.0, time=1.0, iter=100)
    zeros = [{**one, 'step': 0} for one in scores]
    write_log(tmp_path / 'iterations', '20260101_000000', first, *zeros[:2], second, zeros[2])
    # A resumed start evaluates again what the first start evaluated behind iteration 100.
    write_log(tmp_path / 'iterations', '20260102_000000', {'coco/bbox_mAP': 0.25, 'step': 0}, dict(first, iter=150))
    found = RunLog.read(tmp_path / 'iterations').evaluations
    assert [(one.epoch, one.iteration, one.metrics['bbox_mAP']) for one in found] == [
        (None, 50, 0.1), (None, 50, 0.2), (None, 100, 0.25)
    ]  # fmt: skip


def test_time_of_a_run_that_was_resumed_is_that_of_all_its_starts(runs):
    for day, seconds in (('01', 600), ('02', 1800)):
        start = datetime(2026, 1, int(day)).timestamp()
        os.utime(runs[1] / f'202601{day}_000000' / 'vis_data' / 'scalars.json', (start + seconds, start + seconds))
    (runs[1] / 'notes' / 'vis_data').mkdir(parents=True)
    (runs[1] / 'notes' / 'vis_data' / 'scalars.json').write_text('')
    assert total_seconds(runs[1]) == 2400


def test_tool(runs, tmp_path, capsys):
    run_tool('compare_runs', *runs, '--out-dir', tmp_path / 'out')
    lines = (tmp_path / 'out' / 'comparison.md').read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert rows[0] == [
        'run',
        'iterations',
        'box AP',
        'mask AP',
        'best box AP',
        'best mask AP',
        'M parameters',
        's per step',
        'GiB',
    ]
    assert rows[2] == ['`fpn`', '20', '10.0', '31.0', '20.0', '31.0', '-', '0.60', '2.0']
    assert rows[3][:6] == ['`panet`', '30', '15.0 (+5.0)', '40.0 (+9.0)', '15.0', '40.0'] and float(rows[3][6]) > 1
    assert lines[3] in capsys.readouterr().out
    data = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
    assert data[0]['memory_mib'] == 2048 and data[1]['evaluations'][0]['metrics']['segm_mAP'] == 0.4
    assert (tmp_path / 'out' / 'comparison.png').stat().st_size > 5000


@pytest.mark.parametrize(
    'words, message',
    [
        (['nothing'], 'nothing: no such folder'),
        (['empty'], 'empty: no run in it has logged'),
        (['fpn', 'panet', '--names', 'a'], '1 names for 2 folders'),
        (['fpn', 'fpn'], 'the same name: fpn, fpn'),
    ],
)
def test_what_is_refused(runs, tmp_path, monkeypatch, words, message):
    (tmp_path / 'empty').mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        run_tool('compare_runs', *words, '--out-dir', 'out')
    assert not (tmp_path / 'out').exists()


def test_names_are_as_short_as_they_can_be(tmp_path):
    assert shortest_names([tmp_path / 'a', tmp_path / 'b']) == ['a', 'b']
    assert shortest_names([tmp_path / 'a' / 'seed_0', tmp_path / 'b' / 'seed_0']) == ['a/seed_0', 'b/seed_0']
