# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmengine's accumulation, clipping, EMA, learning rate by batch size, early stopping and half precision with PANet."""

import copy

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from pinned_model import batch, build
from tiny_training import make_data, tiny_config

from mmpanet.checkpoints.files import load_untrusted
from mmpanet.engine.run_config import use_amp, use_auto_scale_lr
from mmpanet.engine.runner.checking_runner import build_runner


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes', num_train=4, num_val=1, empty_fraction=0.0)


@pytest.fixture
def cfg(data, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_cfg.max_epochs = 2
    cfg.train_dataloader.batch_size = 2
    return cfg


def weights(model):
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def test_accumulated_gradients_are_those_of_the_larger_batch(config):
    """Two batches of two against one of four, samples equally many (see pinned_model.py)."""
    model = build(config)
    whole, data = copy.deepcopy(model), batch([2, 2, 2, 2])
    whole.train_step(data, OptimWrapper(torch.optim.SGD(whole.parameters(), lr=0.1)))
    accumulating = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    accumulating.initialize_count_status(model, 0, 2)
    before = weights(model)
    model.train_step({key: value[:2] for key, value in data.items()}, accumulating)
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())  # no step yet
    model.train_step({key: value[2:] for key, value in data.items()}, accumulating)
    expected = weights(whole)
    for name, value in weights(model).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-9)
    assert any((value != before[name]).any() for name, value in weights(model).items())


def test_clipping_scales_all_gradients_as_one(config):
    """The step is the unclipped one, shortened to the norm asked for."""
    model = build(config)
    clipped, data, before = copy.deepcopy(model), batch([2, 2]), weights(model)
    model.train_step(data, OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0)))
    clipped.train_step(data, OptimWrapper(torch.optim.SGD(clipped.parameters(), lr=1.0), clip_grad=dict(max_norm=0.1)))
    step = torch.cat([(value - before[name]).flatten() for name, value in weights(model).items()])
    short = torch.cat([(value - before[name]).flatten() for name, value in weights(clipped).items()])
    assert step.norm() > 0.1
    torch.testing.assert_close(short, step * 0.1 / step.norm(), rtol=1e-3, atol=1e-9)


def test_ema_is_the_average_of_all_weights(cfg, tmp_path):
    """The checkpoint holds the averages, to evaluate with, as weights: those that the formula gives."""
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.25)]
    runner = build_runner(cfg)
    expected = {}

    class Average(Hook):
        priority = 'VERY_LOW'

        def before_train(self, runner):
            expected.update(weights(runner.model))

        def after_train_iter(self, runner, *args, **kwargs):
            # mmengine's first step is a copy
            share = 1 if runner.iter == 0 else 0.25
            for name, value in weights(runner.model).items():
                expected[name] += share * (value - expected[name])

    runner.register_hook(Average())
    runner.train()
    saved = load_untrusted(tmp_path / 'run' / 'epoch_2.pth')['state_dict']
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(saved[name], value) for name, value in weights(runner.model).items())


def test_auto_scale_lr_follows_the_batch_size(cfg):
    cfg.auto_scale_lr = dict(base_batch_size=16)
    use_auto_scale_lr(cfg)
    cfg.train_cfg.max_epochs = 1
    runner = build_runner(cfg)
    runner.train()
    assert runner.optim_wrapper.param_groups[0]['initial_lr'] == pytest.approx(cfg.optim_wrapper.optimizer.lr * 2 / 16)


def test_early_stopping_ends_a_training_that_gets_no_better(cfg):
    cfg.train_cfg.update(max_epochs=9, val_interval=1)
    cfg.custom_hooks = [dict(type='EarlyStoppingHook', monitor='coco/segm_mAP', patience=2, min_delta=2.0)]
    runner = build_runner(cfg)
    runner.train()
    assert runner.epoch == 3  # the first, and two that are not better by 2


@pytest.mark.parametrize('kind', ['OptimWrapper', 'mmengine.OptimWrapper', OptimWrapper, AmpOptimWrapper])
def test_amp_replaces_the_wrapper_in_every_form(cfg, kind):
    cfg.optim_wrapper.type = kind
    use_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.gpu
def test_amp_on_a_gpu(cfg, device):
    """mmengine refuses it on a CPU."""
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    if device.type != 'cpu':
        cfg.randomness.deterministic = False  # not all operators of a GPU can be
        runner = build_runner(cfg)
        runner.train()
        assert isinstance(runner.optim_wrapper, AmpOptimWrapper)
        assert all(torch.isfinite(parameter).all() for parameter in runner.model.parameters())
        return
    if torch.cuda.is_available():
        pytest.skip('the trainer takes the GPU that is here')
    with pytest.raises(AssertionError, match='only available training on gpu'):
        build_runner(cfg).train()


@pytest.mark.parametrize('objects', [[2, 2], [0, 0]], ids=['objects', 'none'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.gpu
def test_autocast(config, objects, dtype, device):
    """What AmpOptimWrapper does in a step: losses near those of float32, and a gradient for each parameter."""
    if device.type == 'cpu' and dtype == torch.float16:
        pytest.skip("the CPU's autocast is for bfloat16")
    model, data = build(config).float().to(device), batch(objects)
    data['inputs'] = [image.float() for image in data['inputs']]
    for sample in data['data_samples']:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.float()
        sample.proposals.bboxes = sample.proposals.bboxes.float()
    losses = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=enabled):
            processed = model.data_preprocessor(copy.deepcopy(data), training=True)
            loss, _ = model.parse_losses(model(**processed, mode='loss'))
        loss.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
