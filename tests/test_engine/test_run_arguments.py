# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""tools/train.py and tools/test.py: what their arguments make of a config, and what they refuse."""

import argparse
import os
import sys

import pytest
from mmengine.config import Config
from mmengine.runner import Runner
from repository import ROOT
from tiny_training import load_tool

from mmdet.models import DetTTAModel
from mmpanet.engine import run_config
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.run_config import check_run_config, check_test_time_augmentation, use_test_time_augmentation
from mmpanet.engine.runner import build_runner, cpu_group_runner
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError


class MergesMasks(DetTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


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


def test_an_empty_test_cfg_is_the_test_loop_of_mmengine(config):
    config.write_text("model = dict(type='MaskRCNN')")
    with pytest.raises(ConfigError, match='no test_dataloader, no test_cfg, no test_evaluator'):
        check_run_config(load_config(config), 'test')
    parts = dict(test_dataloader=dict(dataset=dict()), test_evaluator=dict(type='CocoMetric'))
    check_run_config(load_config(config, dict(**parts, test_cfg=dict())), 'test')


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
        ('train', ['--resume', ''], '--resume: an empty name'),
        ('train', ['--cfg-options', 'a=[1,2'], '--cfg-options: Imbalanced brackets'),
        ('test', ['no.pth', '--out', 'FOLDER.pkl'], '--out FOLDER.pkl: is a folder'),
        ('train', ['--cfg-options', 'default_scope=mmdett'], "default_scope='mmdett', and no package or registry"),
    ],
)
def test_refuses_by_name_what_does_not_go_together(config, monkeypatch, capsys, name, words, message):
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    monkeypatch.chdir(config.parent)
    (config.parent / 'FOLDER.pkl').mkdir()
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', str(config), *words])
    with pytest.raises(SystemExit) as exit_with:
        load_tool(name).main()
    assert message in str(exit_with.value.code) + capsys.readouterr().err


@pytest.mark.parametrize(
    'words, message',
    [
        (['--amp'], r"optim_wrapper\.type='AmpOptimWrapper' \(--amp\) needs a GPU"),
        (['--launcher', 'pytorch'], '--launcher pytorch needs torchrun to start the processes'),
    ],
)
def test_refuses_what_mmengine_asserts_on_a_cpu(words, message, monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')
    monkeypatch.delenv('RANK', raising=False)
    for module in (run_config, cpu_group_runner):
        monkeypatch.setattr(module, 'get_device', lambda: 'cpu')
    monkeypatch.chdir(tmp_path)
    config = ROOT / 'configs/shapes/mask-rcnn_r18_panet_shapes.py'
    monkeypatch.setattr(sys, 'argv', ['train.py', str(config), *words])
    with pytest.raises(SystemExit, match=f'^train.py: {message}'):
        load_tool('train').main()


@pytest.mark.parametrize('unset', ['train_cfg', 'val_evaluator', 'test_dataloader', 'val_dataloader'])
def test_what_goes_together_against_mmengine(unset, tmp_path):
    """mmengine's runner refuses a part of what it takes together."""
    splits = {f'{split}_{part}': dict(type='Any') for split in ('val', 'test') for part in ('dataloader', 'cfg')}
    splits.update(val_evaluator=dict(type='Any'), test_evaluator=dict(type='Any'), train_dataloader={}, train_cfg={})
    cfg = Config(dict(splits, model=dict(type='Any'), optim_wrapper=dict(type='Any')))
    cfg[unset] = None
    with pytest.raises(ValueError, match='either all None or not None|all None or'):
        Runner(work_dir=str(tmp_path), cfg=cfg, **{key: cfg.get(key) for key in (*splits, 'model', 'optim_wrapper')})
    task = 'test' if unset == 'train_cfg' else 'train'
    cfg.update({key: dict(type='Any') for key in ('train_dataloader', 'train_cfg') if key != unset})
    with pytest.raises(ConfigError, match=f'{unset} is None; set all of'):
        check_run_config(cfg, task)


def test_test_time_augmentation_flips_and_keeps_the_pipeline():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs')]
    cfg = Config(
        dict(
            model=dict(type='FasterRCNN', roi_head=dict(bbox_head=dict())),
            test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline))),
        )
    )
    use_test_time_augmentation(cfg)
    augmented = cfg.test_dataloader.dataset.dataset.pipeline
    assert [step.type for step in augmented] == ['LoadImageFromFile', 'Resize', 'TestTimeAug']
    assert [flip.prob for flip in augmented[-1].transforms[0]] == [0.0, 1.0]
    assert cfg.model.type == 'DetTTAModel' and cfg.model.module.type == 'FasterRCNN'


@pytest.mark.parametrize(
    'task, change, words',
    [
        ('train', dict(train_cfg=None), ['train_cfg=None', 'optim_wrapper']),
        ('train', dict(train_dataloader=None, optim_wrapper=None), ['train_dataloader=None', 'optim_wrapper=None']),
        ('test', dict(test_cfg=None), ['test_cfg=None', 'test_evaluator']),
        (
            'train',
            dict(train_dataloader=None, data={}, runner={}, optimizer={}),
            ['MMDetection 2.x', 'runner is train_cfg now', 'optimizer is optim_wrapper now'],
        ),
        (
            'train',
            dict(train_dataloader=dict(dataset=dict(pipeline=[dict(type='Resize', img_scale=(64, 64))]))),
            ['train_dataloader.dataset.pipeline[0].img_scale', 'it is scale'],
        ),
        (
            'train',
            dict(train_dataloader=dict(dataset=dict(datasets=[dict(pipeline=[dict(type='Collect')])]))),
            ["train_dataloader.dataset.datasets[0].pipeline[0].type='Collect'", 'PackDetInputs'],
        ),
        ('train', dict(train_dataloader=[{}]), ['train_dataloader=[{}], it takes a dict']),
        ('train', dict(optim_wrapper='OptimWrapper'), ["optim_wrapper='OptimWrapper', it takes a dict"]),
        ('test', dict(model='MaskRCNN'), ["model='MaskRCNN', it takes a dict"]),
        (
            'train',
            dict(val_cfg=dict(type='ValLoop')),
            ['val_dataloader is missing; set all of val_dataloader, val_cfg'],
        ),
        ('train', dict(test_evaluator=None), ['test_evaluator is None; set all of test_dataloader, test_cfg']),
        ('test', dict(train_cfg=None), ['train_cfg is None; set all of train_dataloader, train_cfg, optim_wrapper']),
        ('test', dict(test_dataloader=dict(samples_per_gpu=2)), ['test_dataloader.samples_per_gpu', 'batch_size']),
    ],
)
def test_configs_that_do_not_say_how_to_run(task, change, words):
    keys = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'test_dataloader', 'test_cfg', 'test_evaluator')
    good = {key: dict(type='Any') for key in keys}
    check_run_config(Config(good), task)
    with pytest.raises(ConfigError) as error:
        check_run_config(Config({**good, **change}), task)
    assert len(str(error.value).splitlines()) == 1
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize('name', ['yolox/yolox_tiny_8xb8-300e_coco.py', 'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py'])
def test_arguments_that_mmdet_3_has_too_are_taken(name):
    """Mosaic and MixUp have an img_scale."""
    cfg = load_config(f'mmdet::{name}')
    assert "'img_scale'" in repr(cfg.train_dataloader)
    check_run_config(cfg, 'train')


def test_arguments_of_another_package_are_taken():
    keys = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    cfg = Config({key: dict(type='Any') for key in keys})
    cfg.train_dataloader.pipeline = [dict(type='YOLOXMixUp', img_scale=(64, 64))]
    check_run_config(cfg, 'train')


@pytest.mark.parametrize('words', [['train_cfg.max_epochs', '=', '3'], ['a=1', 'tiny.py']])
def test_a_word_that_is_no_override_is_named(config, words, capsys):
    with pytest.raises(SystemExit):
        load(config, '--cfg-options', *words)
    wrong = next(word for word in words if '=' not in word)
    assert f'--cfg-options: {wrong!r} is no KEY=VALUE' in capsys.readouterr().err


def test_a_work_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match=r'work_dir .*file: .*exists'):
        build_runner(Config(dict(work_dir=str(tmp_path / 'file'))))


def test_test_time_augmentation_of_several_datasets_is_refused():
    cfg = Config(dict(model=dict(), test_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[]))))
    with pytest.raises(ConfigError, match='test_dataloader.dataset is a ConcatDataset without one'):
        use_test_time_augmentation(cfg)


@pytest.mark.parametrize(
    'model, tta_model, refused',
    [
        (dict(roi_head=dict(mask_head=dict(type='FCNMaskHead'))), None, 'model.roi_head.mask_head'),
        (
            dict(roi_head=dict(mask_head=[dict(type='HTCMaskHead')])),
            dict(type='DetTTAModel'),
            'model.roi_head.mask_head',
        ),
        (dict(mask_head=dict(type='SOLOHead')), dict(type='mmdet.DetTTAModel'), 'model.mask_head'),
        (dict(detector=dict(roi_head=dict(mask_head=dict()))), None, ''),
        (dict(roi_head=dict(mask_head=None)), None, ''),
        (dict(mask_head=dict(type='SOLOHead')), dict(type=MergesMasks), ''),
    ],
)
def test_test_time_augmentation_of_masks_needs_a_model_that_merges_them(model, tta_model, refused):
    """The config's own ``tta_model`` too; MMDetection's drops the masks without a word."""
    cfg = Config(dict(model=model, **(dict(tta_model=tta_model) if tta_model else {})))
    if not refused:
        check_test_time_augmentation(cfg)
        return
    with pytest.raises(ConfigError, match=f'--tta merges only boxes by DetTTAModel.*{refused}'):
        check_test_time_augmentation(cfg)
