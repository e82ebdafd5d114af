# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The fused step of optimizers: where it is chosen, and that it computes what the plain step computes."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from tiny_training import make_data, tiny_config

from mmdet.registry import OPTIMIZERS
from mmpanet.engine import fused_step
from mmpanet.engine.fused_step import add_missing_momentum, has_fused_step, with_fused_step, with_step_of
from mmpanet.engine.runner.checking_runner import build_runner

SETTINGS = {
    'SGD': dict(lr=0.1, momentum=0.9, weight_decay=1e-2),
    'Adam': dict(lr=0.1, weight_decay=1e-2),
    'AdamW': dict(lr=0.1, weight_decay=1e-2),
}
has_it = pytest.mark.skipif(not has_fused_step(torch.optim.SGD), reason='this torch has no fused step on CPUs')


def model_of_three():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.GroupNorm(5, 30), torch.nn.Linear(30, 7))


@has_it
@pytest.mark.parametrize('kind', SETTINGS)
def test_computes_what_the_plain_step_computes_in_float64(kind):
    model = model_of_three()
    exact = copy.deepcopy(model).double()
    fused = OPTIMIZERS.build(
        dict(with_fused_step(dict(type=kind, **SETTINGS[kind]), model), params=list(model.parameters()))
    )
    plain = getattr(torch.optim, kind)(exact.parameters(), **SETTINGS[kind], foreach=False)
    assert all(group['fused'] for group in fused.param_groups)
    for _ in range(5):
        x = torch.randn(6, 40)
        for each, optimizer, batch in ((model, fused, x), (exact, plain, x.double())):
            optimizer.zero_grad()
            each(batch).square().mean().backward()
            optimizer.step()
    for parameter, reference in zip(model.parameters(), exact.parameters()):
        torch.testing.assert_close(parameter.double(), reference, rtol=1e-4, atol=1e-4)


@has_it
@pytest.mark.parametrize('kind', [*SETTINGS, torch.optim.SGD])
def test_is_chosen_on_a_cpu(kind):
    optimizer = ConfigDict(type=kind, lr=0.1)
    assert with_fused_step(optimizer, model_of_three()) == dict(type=kind, lr=0.1, fused=True)
    assert optimizer == dict(type=kind, lr=0.1)


@pytest.mark.parametrize(
    'optimizer',
    [
        dict(type='SGD', lr=0.1, fused=False),
        dict(type='AdamW', foreach=True),
        dict(type='Adam', differentiable=True),
        dict(type='Adadelta', lr=0.1),
        dict(type='NoSuchOptimizer'),
        dict(lr=0.1),
    ],
    ids=str,
)
def test_another_choice_stays(optimizer):
    assert with_fused_step(optimizer, model_of_three()) is optimizer


def test_is_not_chosen_for_a_model_elsewhere_or_an_old_torch(monkeypatch):
    optimizer = dict(type='SGD', lr=0.1)
    assert with_fused_step(optimizer, model_of_three().to('meta')) is optimizer
    monkeypatch.setattr(fused_step, 'has_fused_step', lambda kind: False)
    assert with_fused_step(optimizer, model_of_three()) is optimizer


class OldOptimizer(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)


class RefusingOptimizer(torch.optim.SGD):
    def __init__(self, params, lr, fused):
        raise RuntimeError('`fused=True` requires all the params to be CUDA')


@pytest.mark.parametrize('kind', [OldOptimizer, RefusingOptimizer])
def test_an_optimizer_without_it_is_found_out(kind):
    assert not has_fused_step(kind)


@has_it
def test_a_parameter_that_is_trained_later_than_others():
    """An unfrozen layer has no momentum yet. The plain step takes that for zero."""
    models = [model_of_three() for _ in range(2)]
    settings = dict(SETTINGS['SGD'], lr=1e-3)
    optimizers = [torch.optim.SGD(model.parameters(), **settings, fused=not i) for i, model in enumerate(models)]
    optimizers[0].register_step_pre_hook(add_missing_momentum)
    for step in range(4):
        inputs = torch.randn(6, 40)
        for model, optimizer in zip(models, optimizers):
            model[0].requires_grad_(step >= 2)
            optimizer.zero_grad()
            model(inputs).square().sum().backward()
            optimizer.step()
    for one, other in zip(*(model.parameters() for model in models)):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_dampening_keeps_the_plain_step():
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, dampening=0.1)
    assert with_fused_step(optimizer, model_of_three()) == optimizer


@has_it
def test_train_py_lets_layers_be_trained_later(tmp_path):
    data = make_data(tmp_path / 'shapes', num_train=1, num_val=1)
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
    runner = build_runner(cfg)
    optimizer = runner.build_optim_wrapper(runner.optim_wrapper).optimizer
    assert add_missing_momentum in optimizer._optimizer_step_pre_hooks.values()


@has_it
@pytest.mark.parametrize('wanted', [None, False])
def test_train_py_uses_it_and_writes_the_config_down_as_it_was(tmp_path, wanted):
    data = make_data(tmp_path / 'shapes', num_train=1, num_val=1)
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    if wanted is not None:
        cfg.optim_wrapper.optimizer.fused = wanted
    optimizer = dict(cfg.optim_wrapper.optimizer)
    runner = build_runner(cfg)
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    assert {group['fused'] for group in wrapper.optimizer.param_groups} == {wanted is None}
    assert runner.cfg.optim_wrapper.optimizer == optimizer


@pytest.mark.parametrize('saved', [dict(fused=True), dict(fused=None, foreach=True), {}], ids=str)
def test_a_saved_state_does_not_choose_the_step(saved):
    optimizer = torch.optim.AdamW(model_of_three().parameters(), lr=0.1, foreach=False)
    state = optimizer.state_dict()
    for key in ('fused', 'foreach'):
        state['param_groups'][0].pop(key, None)
    state['param_groups'][0].update(saved, lr=0.7)
    optimizer.load_state_dict(with_step_of(optimizer, state))
    [group] = optimizer.param_groups
    assert (group.get('fused'), group['foreach'], group['lr']) == (None, False, 0.7)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TwoOptimizers:
    """One optimizer for the RoI head, and another one for the rest."""

    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.settings = optim_wrapper_cfg['optimizer']

    def __call__(self, model):
        head = set(model.roi_head.parameters())
        rest = [one for one in model.parameters() if one not in head and one.requires_grad]
        wrappers = {
            name: OptimWrapper(OPTIMIZERS.build(dict(self.settings, params=parameters)))
            for name, parameters in (('head', list(model.roi_head.parameters())), ('rest', rest))
        }
        return OptimWrapperDict(**wrappers)


def step_of_all(model, data, optim_wrapper):
    """mmengine leaves it to the model how several optimizers take turns."""
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    for wrapper in optim_wrapper.values():
        wrapper.step()
        wrapper.zero_grad()
    return logged


def test_a_training_with_several_optimizers_goes_on(tmp_path, monkeypatch):
    data = make_data(tmp_path / 'shapes', num_train=2, num_val=1, empty_fraction=0.0)
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.optim_wrapper.constructor = 'TwoOptimizers'
    cfg.train_cfg.update(max_epochs=1, val_interval=9)
    cfg.param_scheduler = []
    monkeypatch.setattr(BaseModel, 'train_step', step_of_all)
    build_runner(cfg).train()
    cfg.resume = True
    cfg.train_cfg.max_epochs = 2
    runner = build_runner(cfg)
    runner.train()
    assert runner.epoch == 2 and isinstance(runner.optim_wrapper, OptimWrapperDict)


@has_it
@pytest.mark.parametrize('before,after', [(False, True), (True, False)])
def test_a_training_goes_on_with_the_step_that_this_torch_has(tmp_path, monkeypatch, before, after):
    data = make_data(tmp_path / 'shapes', num_train=2, num_val=1, empty_fraction=0.0)
    for has, epochs in ((before, 1), (after, 2)):
        monkeypatch.setattr(fused_step, 'has_fused_step', lambda kind, has=has: has)
        cfg = tiny_config(tmp_path / 'tiny.py', data)
        cfg.work_dir = str(tmp_path / 'run')
        cfg.train_cfg.update(max_epochs=epochs, val_interval=9)
        cfg.resume = epochs == 2
        runner = build_runner(cfg)
        runner.train()
        assert runner.epoch == epochs
        assert {bool(group['fused']) for group in runner.optim_wrapper.optimizer.param_groups} == {has}
