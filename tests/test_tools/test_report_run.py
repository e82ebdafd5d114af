# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""tools/analysis_tools/report_run.py on work folders as mmengine leaves them."""

import json

import pytest
from tiny_training import run_tool


def coco(box, mask):
    return {'coco/bbox_mAP': box, 'coco/bbox_mAP_50': box + 0.1, 'coco/bbox_mAP_s': -1.0, 'coco/segm_mAP': mask}


@pytest.fixture
def work_dir(tmp_path):
    """An evaluated run and a later one that was cut off before its evaluation."""
    folder = tmp_path / 'work'
    for name, lines in [
        ('20260101_100000', [dict(loss=1.0), coco(0.1, 0.2), coco(0.4, 0.3)]),
        ('20260101_110000', [dict(loss=0.9)]),
    ]:
        (folder / name / 'vis_data' / 'vis_image').mkdir(parents=True)
        (folder / name / f'{name}.log').write_text('log')
        text = '\n'.join(json.dumps(line) for line in lines) + '\n{"loss": 0.'
        (folder / name / 'vis_data' / 'scalars.json').write_text(text)
    (folder / '20260101_100000' / 'vis_data' / 'vis_image' / 'val_img_0.png').write_bytes(b'')
    for epoch in (1, 2):
        (folder / f'epoch_{epoch}.pth').write_bytes(b'')
    (folder / 'last_checkpoint').write_text('/elsewhere/epoch_2.pth')
    return folder


def test_reports_the_last_evaluation(work_dir, capsys):
    run_tool('report_run', work_dir)
    output = capsys.readouterr().out
    lines = output.splitlines()
    box, mask = (next(line for line in lines if line.startswith(name)).split() for name in ('box AP', 'mask AP'))
    assert box[2:5] == ['0.400', '0.500', '-'] and mask[2] == '0.300'
    for path in ('epoch_2.pth', '20260101_100000.log', 'vis_image'):
        assert path in output
    assert 'epoch_2.pth  (may be of the start 20260101_110000, which has not been evaluated)' in output
    assert output.count('20260101_110000') == 1


def test_a_later_test_run_counts(work_dir, capsys):
    run = work_dir / '20260101_120000'
    run.mkdir()
    (run / f'{run.name}.json').write_text(json.dumps(coco(0.5, 0.45)))
    run_tool('report_run', work_dir)
    output = capsys.readouterr().out
    assert '0.500' in output and '0.450' in output and 'pictures    none' in output

    (run / 'vis_data').mkdir()
    (run / 'vis_data' / 'config.py').write_text("a = 1\nload_from = 'work/epoch_1.pth'\n")
    run_tool('report_run', work_dir)
    output = capsys.readouterr().out
    assert 'checkpoint  work/epoch_1.pth' in output and 'epoch_2.pth' not in output and 'may be of' not in output


def test_pictures_of_levels_are_no_predictions(work_dir, capsys):
    folder = work_dir / '20260101_100000' / 'vis_data' / 'vis_image'
    (folder / 'val_img_0.png').unlink()
    for name in ('levels_1_10.png', 'level_distribution_10.png', 'gates_10.png'):
        (folder / name).write_bytes(b'')
    run_tool('report_run', work_dir)
    assert 'pictures    none' in capsys.readouterr().out


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda folder: None, 'there is no folder'),
        (lambda folder: (folder / '20260101_100000').mkdir(parents=True), 'has COCO metrics'),
    ],
    ids=['no folder', 'no metrics'],
)
def test_says_what_is_missing(tmp_path, make, message):
    make(tmp_path / 'work')
    with pytest.raises(SystemExit, match=f'^report_run.py: .*{message}'):
        run_tool('report_run', tmp_path / 'work')
