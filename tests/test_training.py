# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The OpenMMLab trainer over generated data: train, evaluate, draw, save, resume."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from repository import ROOT

from mmpanet.datasets.shapes import ShapesConfig, make_shapes

CONFIG = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_panet_shapes.py'


@pytest.fixture(scope='module')
def data_root(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes(
        folder,
        ShapesConfig(
            num_train=8, num_val=4, image_size=(64, 64), area=(60, 900), num_objects=(2, 5), empty_fraction=0.2
        ),
    )
    return f'{folder}/'


def read_config(data_root, work_dir) -> Config:
    """The config that `make train` trains, on eight small images."""
    cfg = Config.fromfile(CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = data_root
        loader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.batch_size = 4
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = f'{data_root}val.json'
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2)
    cfg.param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[1])]
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1)
    cfg.default_hooks.visualization.interval = 1
    cfg.randomness = dict(seed=3, deterministic=True)
    cfg.log_level = 'ERROR'
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = work_dir.name
    return cfg


def run(cfg: Config) -> Runner:
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def whole(data_root, tmp_path_factory):
    """A training of two epochs, and its folder."""
    work_dir = tmp_path_factory.mktemp('whole')
    return run(read_config(data_root, work_dir)), work_dir


def test_trains_evaluates_and_draws(whole):
    runner, work_dir = whole
    assert runner.iter == 4
    metrics = {key: runner.message_hub.get_scalar(f'val/coco/{key}').current() for key in ('bbox_mAP', 'segm_mAP')}
    assert all(0 <= value <= 1 for value in metrics.values())
    assert len(list(work_dir.glob('*/vis_data/vis_image/*.png'))) > 0


def test_resumes(whole, data_root, tmp_path):
    """The optimizer goes on from its own state, with two more steps for each parameter."""
    first = torch.load(whole[1] / 'epoch_1.pth')
    assert {int(state['step']) for state in first['optimizer']['state'].values()} == {2}
    cfg = read_config(data_root, tmp_path)
    cfg.resume, cfg.load_from = True, str(whole[1] / 'epoch_1.pth')
    resumed = run(cfg)
    assert resumed.iter == 4 and not (tmp_path / 'epoch_1.pth').exists()
    assert {int(state['step']) for state in resumed.optim_wrapper.optimizer.state_dict()['state'].values()} == {4}


def test_two_runs_of_one_seed_are_equal(whole, data_root, tmp_path):
    """From the first random weight to the end of the first epoch: nothing of ours is nondeterministic."""
    cfg = read_config(data_root, tmp_path)
    cfg.train_cfg.update(max_epochs=1, val_interval=5)
    again = run(cfg).model.state_dict()
    first = torch.load(whole[1] / 'epoch_1.pth')['state_dict']
    assert list(again) == list(first)
    for key, value in first.items():
        assert torch.equal(value, again[key]), key
