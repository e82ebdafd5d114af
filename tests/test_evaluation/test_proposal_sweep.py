# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The sweep against mmdet's own test loop, one run of which has one number of proposals."""

import json

import numpy as np
import pytest
import torch
from tiny_training import make_data, run_tool, tiny_config

from mmdet.registry import MODELS
from mmpanet.engine.runner import build_runner
from mmpanet.evaluation.proposal_sweep import SweepPoint, _prepare, write_sweep
from mmpanet.utils.paired_times import Ratio

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
        assert {f'coco/{key}': value for key, value in point['metrics'].items()} == {
            key: value
            for key, value in expected.items()
            if value >= 0  # COCO's -1 stands for no object of a size
        }
        assert f'| tiny | {point["proposals"]} | {100 * expected["coco/bbox_mAP"]:.1f} |' in out
    assert points[0]['metrics'] != points[-1]['metrics']
    assert points[-1]['ratio'] == [1, 1, 1]
    ratios = np.divide(points[0]['seconds'], points[-1]['seconds'])
    assert points[0]['ratio'][0] == pytest.approx(np.median(ratios))
    assert (tmp_path / 'proposals.png').stat().st_size > 10_000


def test_a_model_without_masks_and_one_that_finds_nothing(tmp_path):
    """They have no mask AP, or no AP at all: no point in the picture, and `-` in the table."""
    ratio = Ratio(1.0, 1.0, 1.0)
    both, boxes = dict(bbox_mAP=0.4, segm_mAP=0.3), dict(bbox_mAP=0.5)
    points = [SweepPoint(*one, [1.0], ratio) for one in (('mask', 10, both), ('box', 10, boxes), ('none', 10, {}))]
    assert [path.name for path in write_sweep(points, tmp_path / 'a')] == [
        'proposals.md', 'proposals.json', 'proposals.png'
    ]  # fmt: skip
    assert '| none | 10 | - | - |' in (tmp_path / 'a' / 'proposals.md').read_text()
    assert [path.name for path in write_sweep(points[2:], tmp_path / 'b')] == ['proposals.md', 'proposals.json']


@pytest.mark.parametrize('nms_pre, expected', [(-1, -1), (20, 60), (100, 100), (None, None)])
def test_as_many_boxes_reach_the_rpn_as_proposals_are_asked_for(trained, nms_pre, expected):
    options = '' if nms_pre is None else f'model["test_cfg"]["rpn"] = dict(nms_pre={nms_pre})\n'
    cfg = tiny_config(trained / 'limit.py', f'{trained}/data/', f'model["test_cfg"] = dict()\n{options}')
    if nms_pre is None:
        cfg.model.test_cfg.rpn.pop('nms_pre')
    cfg.update(load_from=str(trained / 'tiny.pth'), work_dir=str(trained / 'limit'))
    runner = _prepare(cfg, 60)
    assert runner.model.rpn_head.test_cfg.get('nms_pre') == expected


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


def test_names_must_differ(trained, capsys):
    words = ['--model', trained / 'tiny.py', trained / 'tiny.pth'] * 2
    with pytest.raises(SystemExit):
        run_tool('proposal_sweep', *words)
    assert '--names: 2 detectors need as many different names' in capsys.readouterr().err


def test_annotations_are_checked_as_in_testing(trained, tmp_path):
    data = json.loads((trained / 'data' / 'val.json').read_text())
    data['annotations'][0]['category_id'] = 77
    (trained / 'data' / 'wrong.json').write_text(json.dumps(data))
    words = ['--model', trained / 'tiny.py', trained / 'tiny.pth', '--proposals', 2, '--out-dir', tmp_path]
    with pytest.raises(SystemExit, match=r'wrong\.json: annotations\[0\].*77'):
        run_tool('proposal_sweep', *words, '--cfg-options', 'test_dataloader.dataset.ann_file=wrong.json')
