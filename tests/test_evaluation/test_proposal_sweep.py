# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The sweep against mmdet's own test loop, one run of which has one number of proposals."""

import json

import numpy as np
import pytest
import torch
from tiny_training import make_data, run_tool, tiny_config

from mmdet.registry import MODELS
from mmpanet.engine.runner import build_runner

NUMBERS = (1, 7, 40)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A model whose scores are spread, so that other proposals give another AP; its config and checkpoint."""
    folder = tmp_path_factory.mktemp('sweep')
    data = make_data(folder / 'data', num_train=4, num_val=5)
    cfg = tiny_config(folder / 'tiny.py', data, 'model["test_cfg"] = dict(rcnn=dict(score_thr=0.0))\n')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'tiny.pth')
    return folder


def test_metrics_are_those_of_the_test_loop(trained, tmp_path, capsys):
    config, checkpoint = trained / 'tiny.py', trained / 'tiny.pth'
    run_tool('proposal_sweep', '--model', config, checkpoint, '--proposals', *NUMBERS, '--out-dir', tmp_path)
    out = capsys.readouterr().out
    points = json.loads((tmp_path / 'proposals.json').read_text())['points']
    assert [(one['model'], one['proposals'], len(one['seconds'])) for one in points] == [
        ('tiny', number, 5) for number in NUMBERS
    ]
    for point in points:
        cfg = tiny_config(
            trained / 'tiny.py', f'{trained}/data/', 'model["test_cfg"] = dict(rcnn=dict(score_thr=0.0))\n'
        )
        cfg.model.test_cfg.rpn.max_per_img = point['proposals']
        cfg.update(load_from=str(checkpoint), work_dir=str(tmp_path / 'loop'))
        expected = build_runner(cfg).test()
        assert {f'coco/{key}': value for key, value in point['metrics'].items()} == expected
        assert f'| tiny | {point["proposals"]} | {100 * expected["coco/bbox_mAP"]:.1f} |' in out
    assert points[0]['metrics'] != points[-1]['metrics']
    assert points[-1]['ratio'] == [1, 1, 1]
    ratios = np.divide(points[0]['seconds'], points[-1]['seconds'])
    assert points[0]['ratio'][0] == pytest.approx(np.median(ratios))
    assert (tmp_path / 'proposals.png').stat().st_size > 10_000


@pytest.mark.parametrize(
    'more, message',
    [
        ('test_dataloader["dataset"].update(indices=3)', 'different data: tiny: 5, other: 3'),
        ('test_dataloader["dataset"].update(indices=[1, 0, 2, 3, 4])', 'different images: tiny: .*0.*, other: .*1'),
    ],
)
def test_models_of_different_data_are_refused(trained, tmp_path, more, message):
    other = tmp_path / 'other.py'
    other.write_text((trained / 'tiny.py').read_text() + more)
    words = ['--model', trained / 'tiny.py', trained / 'tiny.pth', '--model', other, trained / 'tiny.pth']
    with pytest.raises(SystemExit, match=message):
        run_tool('proposal_sweep', *words, '--proposals', 2, '--out-dir', tmp_path)
    assert not list(tmp_path.glob('proposals.*'))


def test_a_detector_without_proposals_is_refused(trained, tmp_path):
    config = tmp_path / 'retinanet.py'
    config.write_text("_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'\n")
    with pytest.raises(SystemExit, match=r'model\.rpn_head: .*tiny\.pth is of a RetinaNet, which has no proposals'):
        run_tool('proposal_sweep', '--model', config, trained / 'tiny.pth', '--out-dir', tmp_path)


def test_names_must_differ(trained):
    words = ['--model', trained / 'tiny.py', trained / 'tiny.pth'] * 2
    with pytest.raises(SystemExit, match='2'):
        run_tool('proposal_sweep', *words)


def test_annotations_are_checked_as_in_testing(trained, tmp_path):
    data = json.loads((trained / 'data' / 'val.json').read_text())
    data['annotations'][0]['category_id'] = 77
    (trained / 'data' / 'wrong.json').write_text(json.dumps(data))
    words = ['--model', trained / 'tiny.py', trained / 'tiny.pth', '--proposals', 2, '--out-dir', tmp_path]
    with pytest.raises(SystemExit, match=r'wrong\.json: annotations\[0\].*77'):
        run_tool('proposal_sweep', *words, '--cfg-options', 'test_dataloader.dataset.ann_file=wrong.json')
