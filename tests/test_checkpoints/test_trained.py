# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from repository import ROOT, tool_path

from mmpanet.benchmark.models import find_model
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.evaluation import proposal_sweep
from mmpanet.utils.errors import CheckpointError, ConfigError

DSB2018 = ROOT / 'configs' / 'dsb2018' / 'ablation'


@pytest.fixture
def project(tmp_path):
    """A folder of configs with weights for one of them, and a URL for another."""
    folder = tmp_path / 'configs' / 'some'
    (folder / 'deeper').mkdir(parents=True)
    models = [
        dict(Name='a', Config='configs/some/deeper/a.py', Weights='weights/a.pth'),
        dict(Name='b', Config='configs/some/b.py', Weights='https://example.org/b.pth'),
        dict(Name='c', Config='configs/some/c.py'),
    ]
    for model in models:
        (tmp_path / model['Config']).write_text('model = dict()\n')
    (folder / 'metafile.yml').write_text(yaml.safe_dump(dict(Models=models)))
    (tmp_path / 'weights').mkdir()
    (tmp_path / 'weights' / 'a.pth').write_bytes(b'')
    return tmp_path


def test_weights_are_found_wherever_the_command_runs(project, monkeypatch):
    expected = str(project / 'weights' / 'a.pth')
    assert resolve_checkpoint('trained', project / 'configs' / 'some' / 'deeper' / 'a.py') == expected
    monkeypatch.chdir(project / 'configs' / 'some')
    assert resolve_checkpoint('trained', os.path.join('deeper', 'a.py')) == expected
    assert resolve_checkpoint('trained', 'b.py') == 'https://example.org/b.pth'


def test_paths_urls_and_a_file_of_this_name_stay(project, monkeypatch):
    for checkpoint in ('some.pth', 'https://example.org/x.pth'):
        assert resolve_checkpoint(checkpoint, 'no_such_config.py') == checkpoint
    monkeypatch.chdir(project)
    (project / 'trained').write_bytes(b'')
    assert resolve_checkpoint('trained', project / 'configs' / 'some' / 'c.py') == 'trained'


def test_configs_without_weights_are_refused(project, tmp_path_factory):
    folder = project / 'configs' / 'some'
    with pytest.raises(CheckpointError, match=r'trained: no weights come with .*c.py; .*r/a.py, configs/some/b.py'):
        resolve_checkpoint('trained', folder / 'c.py')
    with pytest.raises(CheckpointError, match=r'no weights come with .*alone.py; give a checkpoint'):
        resolve_checkpoint('trained', tmp_path_factory.mktemp('other') / 'alone.py')
    (project / 'weights' / 'a.pth').unlink()
    with pytest.raises(CheckpointError, match=r'metafile.yml names the weights weights/a.pth, and .* is not there'):
        resolve_checkpoint('trained', folder / 'deeper' / 'a.py')


def test_weights_of_configs_by_name():
    assert resolve_checkpoint('trained', 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').startswith('https://')
    with pytest.raises(ConfigError, match='no such config'):
        resolve_checkpoint('trained', 'mmdet::mask_rcnn/mask-rcnn_r1_fpn_1x_coco.py')


def test_all_weights_of_the_project_are_named_by_a_metafile():
    weights = sorted((ROOT / 'docs' / 'results' / 'weights').glob('*.pth'))
    assert len(weights) >= 2
    for path in weights:
        assert resolve_checkpoint('trained', DSB2018 / f'{path.stem}.py') == str(path)


@pytest.mark.parametrize(
    'words',
    [
        ('swap_neck', 'CONFIG', '--checkpoint', 'trained', '--out-checkpoint', 'new.pth'),
        ('proposal_sweep', '--model', 'CONFIG', 'trained'),
        ('level_distribution', 'CONFIG', 'trained', 'image.png'),
        ('benchmark', 'CONFIG', '--mode', 'inference', '--images', '.', '--checkpoints', 'trained'),
        ('benchmark_runtimes', 'CONFIG', '--checkpoints', 'trained'),
        ('export_onnx', 'CONFIG', 'trained', '--out', 'graphs'),
        ('image_demo', 'CONFIG', 'trained', 'image.png'),
        ('test', 'CONFIG', 'trained'),
    ],
    ids=lambda words: words[0],
)
def test_tools_that_take_a_checkpoint_take_the_word(monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite('image.png', np.zeros((8, 8, 3), np.uint8))
    config = str(ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_panet_shapes.py')  # no weights come with it
    monkeypatch.setattr(sys, 'argv', [config if word == 'CONFIG' else word for word in words])
    with pytest.raises(SystemExit, match=f'{words[0]}.py: trained: no weights come with .*{os.path.basename(config)}'):
        runpy.run_path(str(tool_path(words[0])), run_name='__main__')


def test_benchmark_finds_the_weights_of_a_config():
    name = 'mask-rcnn_r18_fpn_48e_dsb2018'
    model = find_model(str(DSB2018 / f'{name}.py'), 'trained')
    assert model.checkpoint == str(ROOT / 'docs' / 'results' / 'weights' / f'{name}.pth')
    with pytest.raises(CheckpointError, match='trained: no weights come with fpn'):
        find_model('fpn', 'trained')


def test_the_sweep_of_proposals_starts_from_the_weights_of_a_config(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = []
    monkeypatch.setattr(
        proposal_sweep, 'sweep_proposals', lambda models, *_, **__: sys.exit(found.extend(models.values()))
    )
    monkeypatch.setattr(sys, 'argv', ['', '--model', str(DSB2018 / 'mask-rcnn_r18_fpn_48e_dsb2018.py'), 'trained'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(tool_path('proposal_sweep')), run_name='__main__')
    assert [Path(cfg.load_from).name for cfg in found] == ['mask-rcnn_r18_fpn_48e_dsb2018.pth']
