# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import os
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from repository import ROOT

from mmpanet.checkpoints import official_norms
from mmpanet.checkpoints.files import load_untrusted
from mmpanet.checkpoints.official_conversion import convert_file, from_official, to_official
from mmpanet.checkpoints.official_rules import CONFIGS, rules
from mmpanet.utils.errors import CheckpointError
from .conftest import build_model, filled_checkpoint


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def changed(kind: str, **changes) -> dict:
    """The official checkpoint with some tensors replaced, or dropped."""
    model = {**filled_checkpoint(kind)['model'], **changes}
    return dict(model={key: value for key, value in model.items() if value is not None})


def without_panet() -> dict:
    """As Detectron.pytorch, the code base under the official one, has it."""
    official = filled_checkpoint('mask')
    model = {
        key: value
        for key, value in official['model'].items()
        if not key.startswith(('Conv_Body.panet', 'Box_Head', 'Mask_'))
    }
    for name in ('fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias'):
        model[f'Box_Head.{name}'] = torch.zeros(1024)
    return dict(model=model)


def test_loads_strictly(kind, tmp_path):
    """Through mmengine, from a file, with no key left over on either side."""
    source, target = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    torch.save(filled_checkpoint(kind), source)
    assert convert_file(source, target) == kind
    model = build_model(kind)
    checkpoint = load_checkpoint(model, str(target), strict=True)
    assert checkpoint['meta']['official']['config'] == CONFIGS[kind]
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 80


def test_every_official_key_has_one_rule(kind):
    theirs = filled_checkpoint(kind)['model']
    found = rules(kind)
    assert sorted(rule.official for rule in found) == sorted(theirs)
    assert len({rule.ours for rule in found}) == len(found)
    for rule in found:
        assert rule.shape == tuple(theirs[rule.official].shape)


def test_there_and_back_is_the_identity(kind):
    official = filled_checkpoint(kind)
    back = to_official(from_official(official))
    assert back['step'] == official['step']
    assert set(back['model']) == set(official['model'])
    for name, tensor in official['model'].items():
        assert torch.equal(back['model'][name], tensor), name


def test_back_and_there_is_the_identity(kind):
    """From ours without the official background, as it is trained here."""
    ours = from_official(filled_checkpoint(kind))
    ours['meta'] = {}
    again = from_official(to_official(ours))
    assert same(again['state_dict'], ours['state_dict'])
    for rows in again['meta']['official']['background'].values():
        assert (rows == 0).all()


def test_signs_of_zero_come_back():
    official = filled_checkpoint('det')
    name = 'Conv_Body.conv_body.res1.bn1'
    official = changed(
        'det', **{f'{name}.weight': -official['model'][f'{name}.weight'], f'{name}.bias': -torch.zeros(64)}
    )
    back = to_official(from_official(official))['model']
    assert torch.signbit(back[f'{name}.bias']).all()


def trained_here() -> dict:
    """Ours, with statistics as the ImageNet weights of the config have them
    and some that were learned."""
    state = dict(from_official(filled_checkpoint('det'))['state_dict'])
    for name in list(state):
        if name.endswith('running_var'):
            state[name] = torch.ones_like(state[name])
    state['backbone.bn1.running_mean'] = torch.randn(64)
    state['backbone.bn1.running_var'] = torch.rand(64) + 0.5
    state['backbone.bn1.num_batches_tracked'] = torch.tensor(7)
    return dict(state_dict=state)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_batch_norms_come_back(dtype):
    ours = trained_here()
    for name, value in ours['state_dict'].items():
        if value.is_floating_point():
            ours['state_dict'][name] = value.to(dtype)
    official = to_official(ours)
    assert {value.dtype for value in official['model'].values()} == {dtype}
    again = from_official(official)['state_dict']
    assert set(again) == set(ours['state_dict'])
    for name, value in ours['state_dict'].items():
        assert again[name].dtype == value.dtype, name
        assert torch.equal(again[name], value), name


def test_kept_batch_norm_gives_way_to_a_change():
    """Of an official checkpoint that was ours, ``model`` is what counts."""
    official = to_official(trained_here())
    name = 'Conv_Body.conv_body.res1.bn1.bias'
    official['model'][name] = official['model'][name] + 1
    again = from_official(official)['state_dict']
    assert torch.equal(again['backbone.bn1.bias'], official['model'][name])
    assert (again['backbone.bn1.running_mean'] == 0).all()
    assert (again['backbone.layer1.0.bn1.running_var'] == 1).all()


def test_classes_are_reordered():
    official = filled_checkpoint('mask')['model']
    ours = from_official(filled_checkpoint('mask'))['state_dict']
    scores = official['Box_Outs.cls_score.weight']
    head = 'roi_head.bbox_head'
    assert torch.equal(ours[f'{head}.fc_cls.weight'][80], scores[0])
    assert torch.equal(ours[f'{head}.fc_cls.weight'][17], scores[18])
    deltas = official['Box_Outs.bbox_pred.bias'].view(81, 4)
    assert torch.equal(ours[f'{head}.fc_reg.bias'].view(80, 4), deltas[1:])
    assert torch.equal(ours['roi_head.mask_head.conv_logits.bias'], official['Mask_Outs.classify.bias'][1:])


def test_frozen_affine_is_exact():
    """The BN computes x * scale + bias to the bit, in eval mode."""
    ours = from_official(filled_checkpoint('det'))['state_dict']
    norm = torch.nn.BatchNorm2d(64, eps=official_norms.BN_EPS).eval()
    norm.load_state_dict(
        {key.rpartition('.')[2]: value for key, value in ours.items() if key.startswith('backbone.bn1.')}
    )
    assert torch.equal(torch.rsqrt(norm.running_var + norm.eps), torch.ones(64))
    x = torch.randn(2, 64, 5, 5, dtype=torch.float64)
    expected = x * norm.weight.double()[:, None, None]
    expected += norm.bias.double()[:, None, None]
    torch.testing.assert_close(norm.double()(x), expected, rtol=1e-7, atol=1e-7)


def test_trained_batch_norms_are_folded():
    ours = from_official(filled_checkpoint('det'))
    state = ours['state_dict']
    norm = torch.nn.BatchNorm2d(64).eval()
    torch.nn.init.uniform_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    for name, value in norm.state_dict().items():
        state[f'backbone.bn1.{name}'] = value
    model = to_official(ours)['model']
    x = torch.randn(2, 64, 3, 3)
    prefix = 'Conv_Body.conv_body.res1.bn1'
    scale, bias = (model[f'{prefix}.{name}'][:, None, None] for name in ('weight', 'bias'))
    torch.testing.assert_close(norm(x), x * scale + bias)


def test_data_parallel_prefix(kind, tmp_path):
    official = filled_checkpoint(kind)
    wrapped = dict(model={f'module.{key}': value for key, value in official['model'].items()})
    torch.save(wrapped, tmp_path / 'wrapped.pth')
    convert_file(tmp_path / 'wrapped.pth', tmp_path / 'ours.pth')
    assert same(load_untrusted(tmp_path / 'ours.pth')['state_dict'], from_official(official)['state_dict'])


@pytest.mark.parametrize(
    'make,words',
    [
        (
            lambda: changed('mask', **{'Mask_Head.upconv.bias': None}),
            ["'mask'", "'Mask_Head.upconv.bias' missing", 'nothing unknown'],
        ),
        (
            lambda: changed('det', **{'Box_Head.fc3.weight': torch.zeros(1)}),
            ["nearest is 'det'", "'Box_Head.fc3.weight' unknown"],
        ),
        (
            lambda: changed('det_2fc', **{'Box_Head.fc2.0.bias': torch.zeros(512)}),
            ["'Box_Head.fc2.0.bias'", '(512,)', '(1024,)'],
        ),
        (lambda: changed('det', **{'RPN.FPN_RPN_conv.bias': 3}), ["'RPN.FPN_RPN_conv.bias'", 'a tensor', 'int']),
        (
            without_panet,
            ["'Box_Head.fc1.0.0.bias'", "'Box_Head.fc1.weight'", 'panet_buttomup', 'no PANet', 'configs/panet'],
        ),
        (lambda: dict(model={'backbone.conv1.weight': torch.zeros(1)}), ['--reverse']),
        (lambda: dict(state_dict={}), ["under 'model'", "'state_dict'", '--reverse']),
        (lambda: dict(model={}), ['not one of the three', 'missing']),
    ],
    ids=['missing', 'unknown', 'shape', 'no tensor', 'no panet', 'our names', 'ours', 'empty'],
)
def test_refuses_what_it_does_not_know(make, words):
    with pytest.raises(CheckpointError) as error:
        from_official(make())
    for word in words:
        assert word in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_refuses_other_models_on_the_way_back():
    state_dict = from_official(filled_checkpoint('det'))['state_dict']
    with pytest.raises(CheckpointError, match="'backbone.bn1.running_var'"):
        to_official(
            dict(state_dict={key: value for key, value in state_dict.items() if key != 'backbone.bn1.running_var'})
        )
    key = 'backbone.bn1.running_mean'
    with pytest.raises(CheckpointError, match=rf"'{key}'.*\(3,\).*\(64,\)"):
        to_official(dict(state_dict={**state_dict, key: torch.zeros(3)}))
    state_dict['roi_head.bbox_head.fc_cls.bias'] = torch.zeros(21)
    with pytest.raises(CheckpointError, match=r'fc_cls.bias.*\(21,\).*\(81,'):
        to_official(dict(state_dict=state_dict))


class Hostile:
    def __init__(self, function, argument):
        self.call = function, (argument,)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize('function,text,name', [(os.system, 'touch {}', 'system'), (exec, "open('{}', 'w')", 'exec')])
def test_hostile_pickle_is_not_run(tmp_path, function, text, name, zipped):
    traces, source = tmp_path / 'traces', tmp_path / 'hostile.pth'
    torch.save(dict(model=Hostile(function, text.format(traces))), source, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=f'hostile.pth.*holds .*{name}') as error:
        convert_file(source, tmp_path / 'ours.pth')
    assert 'weights_only' not in str(error.value)  # torch's advice
    assert 'safe_globals' not in str(error.value)
    assert not traces.exists() and not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize('zipped', [True, False])
def test_optimizer_state_and_numpy_numbers_are_read(tmp_path, zipped):
    """What the official training loop saves beside the weights; its torch
    wrote another file format."""
    checkpoint = filled_checkpoint('det')
    checkpoint = {
        **checkpoint,
        'step': 7,
        'optimizer': dict(
            state={0: dict(momentum_buffer=torch.zeros(3))}, param_groups=[dict(lr=np.float64(2e-4), params=[0])]
        ),
    }
    source, target = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    torch.save(checkpoint, source, _use_new_zipfile_serialization=zipped)
    assert convert_file(source, target) == 'det'
    assert load_untrusted(target)['meta']['official']['step'] == 7


@pytest.mark.parametrize('zipped', [True, False])
def test_file_that_ends_anywhere(tmp_path, zipped):
    source = tmp_path / 'cut.pth'
    torch.save(
        dict(model=OrderedDict((f'w{i}', torch.rand(9)) for i in range(4))),
        source,
        _use_new_zipfile_serialization=zipped,
    )
    whole = source.read_bytes()
    for end in range(0, len(whole), max(1, len(whole) // 200)):
        source.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match='cut.pth'):
            load_untrusted(source)


@pytest.mark.parametrize('content', ['cut', 'text', 'empty'])
def test_broken_file(tmp_path, content):
    source, target = tmp_path / 'broken.pth', tmp_path / 'ours.pth'
    torch.save(dict(model=dict(weight=torch.zeros(1000))), source)
    whole = source.read_bytes()
    source.write_bytes(dict(cut=whole[: len(whole) // 2], text=b'no checkpoint', empty=b'')[content])
    target.write_bytes(b'an older file')
    with pytest.raises(CheckpointError, match='broken.pth'):
        convert_file(source, target)
    assert target.read_bytes() == b'an older file'
    assert sorted(os.listdir(tmp_path)) == ['broken.pth', 'ours.pth']


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    source, target = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    torch.save(filled_checkpoint('det_2fc'), source)
    convert_file(source, target)
    before = target.read_bytes()

    def full_disk(path, content):
        with open(path, 'w') as file:
            file.write('half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full_disk)
    with pytest.raises(OSError, match='No space left'):
        convert_file(source, target)
    assert target.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ['official.pth', 'ours.pth']


def test_source_is_not_overwritten(tmp_path):
    source = tmp_path / 'official.pth'
    torch.save(dict(model={}), source)
    with pytest.raises(CheckpointError, match='overwritten'):
        convert_file(source, tmp_path / '.' / 'official.pth')
    with pytest.raises(CheckpointError, match='no such folder'):
        convert_file(source, tmp_path / 'nowhere' / 'ours.pth')


def test_command_line(tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(ROOT / 'tools/model_converters/convert_official_checkpoint.py'))

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['convert', *map(str, args)])
        tool['main']()

    official, ours, back = (tmp_path / f'{name}.pth' for name in ('official', 'ours', 'back'))
    torch.save(filled_checkpoint('det'), official)
    run(official, ours)
    printed = capsys.readouterr().out
    assert "'det'" in printed and CONFIGS['det'] in printed
    assert f'{len(filled_checkpoint("det")["model"])} tensors' in printed
    run(ours, back, '--reverse')
    assert '--load_ckpt' in capsys.readouterr().out
    model = load_untrusted(back)['model']
    for name, tensor in filled_checkpoint('det')['model'].items():
        assert torch.equal(model[name], tensor), name
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(ours, back)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "under 'model'" in line and 'ours.pth' in line
