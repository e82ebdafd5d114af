# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""tools/train.py and tools/test.py: what their arguments make of a config, and what they refuse."""

import argparse
import importlib.util
import os
import sys

import pytest
from mmengine.config import Config
from repository import tool_path

from mmpanet.engine.run_arguments import add_run_arguments, load_run_config


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(
        'model = dict(roi_head=dict(mask_head=dict(type="FCFusionMaskHead")))\n'
        'optim_wrapper = dict(type="OptimWrapper")\ntrain_cfg = dict(max_epochs=6)\n'
    )
    return path


def load(config, *words):
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_run_arguments(parser)
    return load_run_config(parser.parse_args([str(config), *words]))


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', tool_path(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_work_dir_comes_from_the_argument_the_config_or_its_name(config, monkeypatch):
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    assert load(config).work_dir == os.path.join('work_dirs', 'tiny')
    config.write_text('work_dir = "from_config"')
    assert load(config).work_dir == 'from_config'
    assert load(config, '--work-dir', 'given').work_dir == 'given'


def test_cfg_options_override_the_config(config, monkeypatch):
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    cfg = load(config, '--cfg-options', 'train_cfg.max_epochs=2', 'steps="[1,2]"', '--launcher', 'slurm')
    assert cfg.train_cfg.max_epochs == 2 and cfg.steps == [1, 2] and cfg.launcher == 'slurm'


@pytest.mark.parametrize('spelling', ['--local-rank', '--local_rank'])
def test_local_rank_in_either_spelling(config, monkeypatch, spelling):
    monkeypatch.setattr(os, 'environ', {})
    load(config, f'{spelling}=3')
    assert os.environ == dict(LOCAL_RANK='3')
    os.environ['LOCAL_RANK'] = '1'  # torchrun's own word counts more
    load(config, f'{spelling}=3')
    assert os.environ == dict(LOCAL_RANK='1')


@pytest.mark.parametrize(
    'name, words, message',
    [
        ('train', ['--auto-scale-lr'], 'auto_scale_lr=dict(base_batch_size=...)'),
        ('train', ['--amp', '--cfg-options', 'optim_wrapper.type=ApexOptimWrapper'], "has 'ApexOptimWrapper'"),
        ('test', ['no.pth', '--out', 'predictions.json'], 'ends in .pkl or .pickle'),
        ('test', ['no.pth', '--tta'], '--tta merges only boxes'),
    ],
)
def test_refuses_by_name_what_does_not_go_together(config, monkeypatch, capsys, name, words, message):
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', str(config), *words])
    with pytest.raises(SystemExit) as exit_with:
        load_tool(name).main()
    assert message in str(exit_with.value.code) + capsys.readouterr().err


def test_test_time_augmentation_flips_and_keeps_the_pipeline():
    test_tool = load_tool('test')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]
    cfg = Config(
        dict(
            model=dict(type='FasterRCNN', roi_head=dict(bbox_head=dict())),
            test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))),
        )
    )
    test_tool.use_test_time_augmentation(cfg)
    augmented = cfg.test_dataloader.dataset.dataset.pipeline
    assert [step.type for step in augmented] == ['LoadImageFromFile', 'Resize', 'TestTimeAug']
    assert [flip.prob for flip in augmented[-1].transforms[0]] == [0.0, 1.0]
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'FasterRCNN'
