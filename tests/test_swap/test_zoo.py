# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import csv
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from repository import ROOT, tool_path
from swap_zoo.page import write_csv, zoo_page
from swap_zoo.sweep import Zoo, train_swapped

import mmdet
from mmpanet.utils.configs import load_config

ZOO = Path(mmdet.__file__).parent / '.mim' / 'configs'
CONFIGS = {
    'works.py': "_base_ = 'mmdet::rpn/rpn_r50_fpn_1x_coco.py'\n"
    'model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),\n'
    '             rpn_head=dict(in_channels=32, feat_channels=32))\n',
    'same.py': "_base_ = './works.py'\nmodel = dict(backbone=dict(depth=34))\n",
    'no_fpn.py': "model = dict(type='RetinaNet', neck=dict(type='HRFPN'))\n",
    'no_model.py': 'max_epochs = 12\n',
    'broken.py': "_base_ = './nowhere.py'\n",
    'unbuilt.py': "model = dict(type='RetinaNet', neck=dict(type='FPN'))\n",
}


@pytest.fixture
def small_zoo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / 'configs'
    root.mkdir()
    for name, text in CONFIGS.items():
        (root / name).write_text(text)
    return Zoo(root, tmp_path / 'results.jsonl')


def test_zoo(small_zoo, tmp_path):
    for name in small_zoo.to_build():
        small_zoo.build(name)
    outcomes = {name: build.get('failed', 'built') for name, build in small_zoo.builds.items()}
    assert outcomes == {
        'works.py': 'built',
        'same.py': 'built',
        'no_fpn.py': 'no FPN',
        'no_model.py': 'no model',
        'broken.py': 'load',
        'unbuilt.py': 'build before',
    }
    assert small_zoo.builds['works.py']['difference'] == 0
    assert small_zoo.groups() == {'works.py': ['same.py', 'works.py']}
    assert '6 of 6 configs had been swapped and built, and 0 of their 1 groups' in zoo_page(small_zoo, 'zoo.csv')
    small_zoo.train('works.py')
    assert small_zoo.trainings['works.py']['works'], small_zoo.trainings['works.py']

    # Nothing is done twice.
    continued = Zoo(small_zoo.root, small_zoo.file)
    assert continued.to_build() == [] and continued.to_train() == []
    page = zoo_page(continued, 'zoo.csv')
    assert 'Unfinished' not in page and '[`zoo.csv`](zoo.csv)' in page
    assert '| groups that train and predict | 1 |' in page and '| configs in these groups | 2 |' in page
    for name in ('no_fpn.py', 'broken.py', 'unbuilt.py'):
        assert f'`{name}`' in page, 'the page names every config that does not work'
    write_csv(continued, tmp_path / 'zoo.csv')
    with open(tmp_path / 'zoo.csv') as file:
        rows = {row['config']: row for row in csv.DictReader(file)}
    assert rows.keys() == CONFIGS.keys()
    assert [rows['same.py'][key] for key in ('model', 'neck', 'neck_arguments', 'neck_swapped', 'built')] == [
        'RPN',
        'FPN',
        'num_outs=5',
        'yes',
        'yes',
    ]
    assert rows['same.py']['group'] == 'works.py' and rows['same.py']['group_trains'] == 'yes'
    assert float(rows['same.py']['warm_start_difference']) == 0 and not rows['same.py']['reason']
    before, after = (float(rows['works.py'][f'million_parameters_{key}']) for key in ('before', 'with_neck'))
    assert 11 < before <= after
    assert 'missing' in rows['unbuilt.py']['reason'] and rows['no_fpn.py']['neck'] == 'HRFPN'


def run_tool(monkeypatch, name, *args):
    monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
    runpy.run_path(str(tool_path(Path(name).stem)), run_name='__main__')


def test_swap_neck_writes(monkeypatch, capsys, tmp_path, small_config, trained_like):
    (tmp_path / 'old.py').write_text(small_config.dump())
    torch.save(dict(state_dict=trained_like.state_dict(), optimizer={}), tmp_path / 'old.pth')
    run_tool(
        monkeypatch,
        'swap_neck.py',
        tmp_path / 'old.py',
        '--out',
        tmp_path / 'new.py',
        '--warm-start',
        '--roi-head',
        '--checkpoint',
        tmp_path / 'old.pth',
        '--out-checkpoint',
        tmp_path / 'new.pth',
    )
    shown = capsys.readouterr().out
    assert 'model.neck is a PANetNeck now' in shown and "_base_ = 'old.py'" in shown and 'optimizer' in shown
    cfg = load_config(tmp_path / 'new.py')
    assert cfg.model.roi_head.type == 'PANetRoIHead' and cfg.load_from == str(tmp_path / 'new.pth')


def test_swap_neck_only_shows(monkeypatch, capsys, tmp_path):
    run_tool(monkeypatch, 'swap_neck.py', 'mmdet::retinanet_r50_fpn_1x_coco', '--out', tmp_path / 'new.py', '--dry-run')
    assert "+        type='PANetNeck'" in capsys.readouterr().out and not (tmp_path / 'new.py').exists()


def test_swap_neck_refuses(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match='swap_neck.py: model .RetinaNet. has no roi_head'):
        run_tool(monkeypatch, 'swap_neck.py', 'mmdet::retinanet_r50_fpn_1x_coco', '--roi-head', '--dry-run')


# One of each kind of detector. .dev_scripts/sweep_zoo.py tries the whole zoo and writes docs/zoo.md.
@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
        'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
        'fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py',
        'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py',
        'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py',
        'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
        'pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py',
        'retinanet/retinanet_r18_fpn_1x_coco.py',
        'solov2/solov2_r50_fpn_1x_coco.py',
        'yolact/yolact_r50_1xb8-55e_coco.py',
    ],
)
def test_training_after_the_swap(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    result = train_swapped(ZOO / name)
    assert result['works'], result
    assert result['inherits']


@pytest.mark.slow
def test_the_page_covers_the_zoo():
    """docs/zoo.csv has a row for every config, and the neck of every config with an FPN was swapped."""
    with open(ROOT / 'docs' / 'zoo.csv') as file:
        rows = {row['config']: row for row in csv.DictReader(file)}
    with_fpn = [
        path
        for path in ZOO.rglob('*.py')
        if '_base_' not in path.parts and json.dumps('FPN') in json.dumps(_necks(path))
    ]
    missing = [path.name for path in with_fpn if rows[path.relative_to(ZOO).as_posix()]['neck_swapped'] != 'yes']
    assert len(with_fpn) > 500 and not missing


def _necks(path):
    from mmpanet.swap.model_search import find_models, necks_of

    try:
        cfg = load_config(path)
    except Exception:
        return []
    return [neck['type'] for _, model in find_models(cfg.get('model', {})) for neck in necks_of(model)]
