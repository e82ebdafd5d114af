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


@pytest.fixture
def cfg(data_root, tmp_path) -> Config:
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
    cfg.log_level = 'ERROR'
    cfg.work_dir = str(tmp_path)
    return cfg


def run(cfg: Config, name: str) -> Runner:
    cfg.experiment_name = name
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def test_trains_evaluates_draws_and_resumes(cfg, tmp_path):
    runner = run(cfg, 'whole')
    assert runner.iter == 4
    metrics = {key: runner.message_hub.get_scalar(f'val/coco/{key}').current() for key in ('bbox_mAP', 'segm_mAP')}
    assert all(-1 <= value <= 1 for value in metrics.values())
    assert len(list(tmp_path.glob('*/vis_data/vis_image/*.png'))) > 0

    first = torch.load(tmp_path / 'epoch_1.pth')
    cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_1.pth')
    resumed = run(cfg, 'resumed')
    assert resumed.iter == 4
    # The optimizer goes on from its own state: two more steps a parameter.
    steps = {int(state['step']) for state in resumed.optim_wrapper.optimizer.state_dict()['state'].values()}
    assert steps == {4}
    assert {int(state['step']) for state in first['optimizer']['state'].values()} == {2}


def test_two_runs_of_one_seed_are_equal(cfg, tmp_path):
    """From the first random weight to the last step: nothing of ours is nondeterministic."""
    cfg.randomness = dict(seed=3, deterministic=True)
    cfg.train_cfg.update(max_epochs=1, val_interval=5)
    weights = []
    for name in ('first', 'second'):
        cfg.work_dir = str(tmp_path / name)
        weights.append(run(cfg, name).model.state_dict())
    for key, value in weights[0].items():
        assert torch.equal(value, weights[1][key]), key
