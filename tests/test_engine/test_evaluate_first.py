# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
import torch
from mmengine.hooks import Hook
from tiny_training import make_data, tiny_config

from mmpanet.checkpoints.files import load_untrusted
from mmpanet.engine.runner.checking_runner import build_runner
from mmpanet.evaluation.run_log import RunLog
from mmpanet.utils.errors import ConfigError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes', num_train=4, num_val=2, empty_fraction=0.0)


@pytest.fixture
def cfg(data, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny.py', data, "custom_hooks = [dict(type='EvaluateFirstHook')]\n")
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return cfg


class Evaluations(Hook):
    """Keeps what every evaluation evaluated and found, and checks that the steps run in training mode."""

    priority = 'LOWEST'  # after EMAHook, which puts the averaged weights into the model

    def __init__(self):
        self.seen = []
        self.weights = []

    def before_train_iter(self, runner, *args, **kwargs):
        assert runner.model.training

    def before_val_epoch(self, runner):
        self.weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})

    def after_val_epoch(self, runner, metrics=None):
        self.seen.append((runner.iter, metrics))


def train(cfg, first_weights=None):
    """Returns iteration and metrics of every evaluation. The first one must be that of the weights of a file."""
    expected = load_untrusted(first_weights)['state_dict'] if first_weights else {}
    evaluations = Evaluations()
    runner = build_runner(cfg)
    runner.register_hook(evaluations)
    runner.train()
    assert all(torch.equal(evaluations.weights[0][name], value) for name, value in expected.items())
    return evaluations.seen


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook')]], ids=['', 'EMAHook'])
def test_the_first_evaluation_is_that_of_the_loaded_model(cfg, tmp_path, hooks):
    first, last = train(cfg)
    assert first[0] == 0 and last[0] == 1
    points = [(one.iteration, one.epoch) for one in RunLog.read(tmp_path / 'run').evaluations]
    assert points == [(0, 0), (1, 1)]  # of the curves of AP

    cfg.load_from, cfg.work_dir = str(tmp_path / 'run' / 'epoch_1.pth'), str(tmp_path / 'second')
    cfg.custom_hooks += hooks
    second = train(cfg, first_weights=tmp_path / 'run' / 'epoch_1.pth')
    assert [iteration for iteration, _ in second] == [0, 1] and second[0][1] == last[1]


def test_averaged_weights_are_those_that_the_config_initializes(cfg, tmp_path):
    """EMAHook copies the model before its weights are initialized."""
    _, last = train(cfg)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'run' / 'epoch_1.pth'))
    cfg.work_dir = str(tmp_path / 'second')
    cfg.custom_hooks.append(dict(type='EMAHook'))
    assert train(cfg, first_weights=tmp_path / 'run' / 'epoch_1.pth')[0][1] == last[1]


def test_a_resumed_training_does_not_evaluate_again(cfg, tmp_path):
    train(cfg)
    cfg.train_cfg.max_epochs = 2
    cfg.resume, cfg.load_from = True, str(tmp_path / 'run' / 'epoch_1.pth')
    assert [iteration for iteration, _ in train(cfg)] == [2]


def drop_last_evaluation(run):
    """Leave the folder as it is when the training is killed between the last checkpoint and its evaluation."""
    [file] = run.glob('*/vis_data/scalars.json')
    lines = file.read_text().splitlines()
    assert 'coco/bbox_mAP' in lines[-1]
    file.write_text('\n'.join(lines[:-1]) + '\n')
    assert (run / 'last_evaluation').read_text() == '1\n'
    (run / 'last_evaluation').write_text('0\n')


@pytest.mark.parametrize('max_epochs, expected', [(1, [1]), (2, [1, 2])])
def test_a_resumed_training_makes_up_for_a_missed_evaluation(cfg, tmp_path, max_epochs, expected):
    first, last = train(cfg)
    drop_last_evaluation(tmp_path / 'run')
    cfg.train_cfg.max_epochs = max_epochs
    cfg.resume = True
    seen = train(cfg, first_weights=tmp_path / 'run' / 'epoch_1.pth')
    assert [iteration for iteration, _ in seen] == expected and seen[0][1] == last[1]
    assert [one.epoch for one in RunLog.read(tmp_path / 'run').evaluations] == [0, *expected]


def test_a_checkpoint_within_an_epoch_is_not_evaluated_for_the_epoch_before(cfg, tmp_path):
    cfg.train_dataloader.batch_size = 2
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=1, max_keep_ckpts=-1)
    _, (steps_per_epoch, _), _ = train(cfg)
    assert steps_per_epoch > 1
    for step in range(steps_per_epoch + 2, 2 * steps_per_epoch + 1):  # the training was killed before
        (tmp_path / 'run' / f'iter_{step}.pth').unlink()
    (tmp_path / 'run' / 'last_evaluation').write_text('1\n')
    cfg.resume = True
    assert [iteration for iteration, _ in train(cfg)] == [2 * steps_per_epoch + 1]


def test_a_missed_evaluation_in_a_training_that_counts_iterations(cfg, tmp_path):
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
    cfg.param_scheduler = []
    train(cfg)
    cfg.resume = True
    assert train(cfg) == []  # nothing is left to do
    (tmp_path / 'run' / 'last_evaluation').write_text('0\n')
    assert [iteration for iteration, _ in train(cfg)] == [2]
    assert train(cfg) == []


def test_a_missed_evaluation_of_a_checkpoint_in_a_folder_of_its_own(cfg, tmp_path):
    cfg.default_hooks.checkpoint.out_dir = str(tmp_path / 'checkpoints')
    train(cfg)
    (tmp_path / 'run' / 'last_evaluation').write_text('0\n')
    cfg.resume = True
    assert [iteration for iteration, _ in train(cfg)] == [1]


def test_a_missed_evaluation_of_a_checkpoint_that_is_named(cfg, tmp_path, monkeypatch):
    train(cfg)
    (tmp_path / 'run' / 'last_evaluation').write_text('0\n')
    monkeypatch.chdir(tmp_path)
    cfg.resume, cfg.load_from = True, 'run/epoch_1.pth'
    assert [iteration for iteration, _ in train(cfg)] == [1]


def test_a_folder_that_does_not_say_what_was_evaluated_is_left_alone(cfg, tmp_path):
    train(cfg)
    (tmp_path / 'run' / 'last_evaluation').unlink()
    cfg.resume = True
    assert train(cfg) == []


def test_a_training_that_begins_anew_forgets_the_evaluations_before(cfg, tmp_path):
    train(cfg)
    (tmp_path / 'run' / 'last_evaluation').write_text('100\n')
    cfg.custom_hooks = []
    runner = build_runner(cfg)
    assert runner.train_loop.max_epochs == 1  # it is built, and the loop of the validation with it
    runner.val_loop.run = lambda: None  # killed before the evaluation
    runner.train()
    assert (tmp_path / 'run' / 'last_evaluation').read_text() == '0\n'


def test_a_training_that_resumes_elsewhere_does_not_evaluate_first(cfg, tmp_path):
    train(cfg)
    cfg.train_cfg.max_epochs = 2
    cfg.resume, cfg.load_from = True, str(tmp_path / 'run' / 'epoch_1.pth')
    cfg.work_dir = str(tmp_path / 'other')
    assert [iteration for iteration, _ in train(cfg)] == [2]


def test_a_folder_in_the_name_of_checkpoints_is_refused(cfg):
    cfg.default_hooks.checkpoint.filename_tmpl = 'weights/epoch_{}.pth'
    with pytest.raises(ConfigError, match='filename_tmpl=.* has a folder; it takes a name, and out_dir names'):
        build_runner(cfg)


def test_a_config_without_validation_is_refused(cfg):
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    with pytest.raises(ValueError, match='EvaluateFirstHook: the config has no validation'):
        train(cfg)
