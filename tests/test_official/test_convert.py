# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmpanet import convert
from mmpanet.convert import (
    CONFIGS,
    ConversionError,
    convert_file,
    from_official,
    load_untrusted,
    rules,
    save_whole,
    to_official,
)
from .conftest import build_model, official_checkpoint

ROOT = Path(__file__).parents[2]


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def changed(kind: str, **changes) -> dict:
    """The official checkpoint with some tensors replaced, or dropped."""
    model = {**official_checkpoint(kind)['model'], **changes}
    return dict(model={
        key: value
        for key, value in model.items() if value is not None
    })


def test_loads_strictly(kind, tmp_path):
    """Through mmengine, from a file, with no key left over on either side."""
    source, target = tmp_path / 'official.pth', tmp_path / 'ours.pth'
    torch.save(official_checkpoint(kind), source)
    assert convert_file(source, target) == kind
    model = build_model(kind)
    checkpoint = load_checkpoint(model, str(target), strict=True)
    assert checkpoint['meta']['official']['config'] == CONFIGS[kind]
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 80


def test_every_official_key_has_one_rule(kind):
    theirs = official_checkpoint(kind)['model']
    found = rules(kind)
    assert sorted(rule.official for rule in found) == sorted(theirs)
    assert len({rule.ours for rule in found}) == len(found)
    for rule in found:
        assert rule.shape == tuple(theirs[rule.official].shape)


def test_there_and_back_is_the_identity(kind):
    official = official_checkpoint(kind)
    back = to_official(from_official(official))
    assert back['step'] == official['step']
    assert set(back['model']) == set(official['model'])
    for name, tensor in official['model'].items():
        assert torch.equal(back['model'][name], tensor), name


def test_back_and_there_is_the_identity(kind):
    """From ours, without the official background: it comes from nowhere."""
    ours = from_official(official_checkpoint(kind))
    ours['meta'] = {}
    again = from_official(to_official(ours))
    assert same(again['state_dict'], ours['state_dict'])
    for rows in again['meta']['official']['background'].values():
        assert (rows == 0).all()


def test_classes_are_reordered():
    official = official_checkpoint('mask')['model']
    ours = from_official(official_checkpoint('mask'))['state_dict']
    scores = official['Box_Outs.cls_score.weight']
    head = 'roi_head.bbox_head'
    assert torch.equal(ours[f'{head}.fc_cls.weight'][80], scores[0])
    assert torch.equal(ours[f'{head}.fc_cls.weight'][17], scores[18])
    deltas = official['Box_Outs.bbox_pred.bias'].view(81, 4)
    assert torch.equal(ours[f'{head}.fc_reg.bias'].view(80, 4), deltas[1:])
    assert torch.equal(ours['roi_head.mask_head.conv_logits.bias'],
                       official['Mask_Outs.classify.bias'][1:])


def test_frozen_affine_is_exact():
    """The BN computes x * scale + bias to the bit, in eval mode."""
    ours = from_official(official_checkpoint('det'))['state_dict']
    norm = torch.nn.BatchNorm2d(64, eps=convert.BN_EPS).eval()
    norm.load_state_dict({
        key.rpartition('.')[2]: value
        for key, value in ours.items() if key.startswith('backbone.bn1.')
    })
    assert torch.equal(torch.rsqrt(norm.running_var + norm.eps),
                       torch.ones(64))
    x = torch.randn(2, 64, 5, 5, dtype=torch.float64)
    expected = x * norm.weight.double()[:, None, None]
    expected += norm.bias.double()[:, None, None]
    torch.testing.assert_close(
        norm.double()(x), expected, rtol=1e-7, atol=1e-7)


def test_trained_batch_norms_are_folded():
    ours = from_official(official_checkpoint('det'))
    state = ours['state_dict']
    norm = torch.nn.BatchNorm2d(64).eval()
    torch.nn.init.uniform_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    for name, value in norm.state_dict().items():
        state[f'backbone.bn1.{name}'] = value
    model = to_official(ours)['model']
    x = torch.randn(2, 64, 3, 3)
    prefix = 'Conv_Body.conv_body.res1.bn1'
    scale, bias = (model[f'{prefix}.{name}'][:, None, None]
                   for name in ('weight', 'bias'))
    torch.testing.assert_close(norm(x), x * scale + bias)


def test_data_parallel_prefix(kind):
    official = official_checkpoint(kind)
    wrapped = dict(model={f'module.{key}': value
                          for key, value in official['model'].items()})
    assert same(from_official(wrapped)['state_dict'],
                from_official(official)['state_dict'])


@pytest.mark.parametrize('checkpoint,words', [
    (changed('mask', **{'Mask_Head.upconv.bias': None}),
     ["'mask'", "'Mask_Head.upconv.bias' missing", 'nothing unknown']),
    (changed('det', **{'Box_Head.fc3.weight': torch.zeros(1)}),
     ["nearest is 'det'", "'Box_Head.fc3.weight' unknown"]),
    (changed('det_2fc', **{'Box_Head.fc2.0.bias': torch.zeros(512)}),
     ["'Box_Head.fc2.0.bias'", '(512,)', '(1024,)']),
    (changed('det', **{'RPN.FPN_RPN_conv.bias': 3}),
     ["'RPN.FPN_RPN_conv.bias'", 'a tensor', 'int']),
    (dict(state_dict={}), ["under 'model'", "['state_dict']"]),
    (dict(model={}), ['not one of the three', 'missing']),
    ([1, 2], ["under 'model'", 'list']),
], ids=['missing', 'unknown', 'shape', 'no tensor', 'ours', 'empty', 'list'])
def test_refuses_what_it_does_not_know(checkpoint, words):
    with pytest.raises(ConversionError) as error:
        from_official(checkpoint)
    for word in words:
        assert word in str(error.value)


def test_refuses_other_models_on_the_way_back():
    state_dict = from_official(official_checkpoint('det'))['state_dict']
    with pytest.raises(ConversionError, match="'backbone.bn1.running_var'"):
        to_official(dict(state_dict={
            key: value for key, value in state_dict.items()
            if key != 'backbone.bn1.running_var'}))
    state_dict['roi_head.bbox_head.fc_cls.bias'] = torch.zeros(21)
    with pytest.raises(ConversionError, match=r'fc_cls.bias.*\(21,\).*\(81,'):
        to_official(dict(state_dict=state_dict))


class Hostile:

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command, )


def test_hostile_pickle_is_not_run(tmp_path):
    traces, source = tmp_path / 'traces', tmp_path / 'hostile.pth'
    torch.save(dict(model=Hostile(f'touch {traces}')), source)
    with pytest.raises(ConversionError, match='hostile.pth.*system'):
        convert_file(source, tmp_path / 'ours.pth')
    assert not traces.exists() and not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize('content', ['cut', 'text', 'empty'])
def test_broken_file(tmp_path, content):
    source, target = tmp_path / 'broken.pth', tmp_path / 'ours.pth'
    torch.save(dict(model=dict(weight=torch.zeros(1000))), source)
    whole = source.read_bytes()
    source.write_bytes(
        dict(cut=whole[:len(whole) // 2], text=b'no checkpoint',
             empty=b'')[content])
    target.write_bytes(b'an older file')
    with pytest.raises(ConversionError, match='broken.pth'):
        convert_file(source, target)
    assert target.read_bytes() == b'an older file'
    assert sorted(os.listdir(tmp_path)) == ['broken.pth', 'ours.pth']


def test_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / 'ours.pth'
    save_whole(dict(state_dict={}), target)
    before = target.read_bytes()

    def full_disk(checkpoint, path):
        Path(path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', full_disk)
    with pytest.raises(OSError, match='No space left'):
        save_whole(dict(state_dict={}), target)
    assert target.read_bytes() == before
    assert os.listdir(tmp_path) == ['ours.pth']


def test_source_is_not_overwritten(tmp_path):
    source = tmp_path / 'official.pth'
    torch.save(dict(model={}), source)
    with pytest.raises(ConversionError, match='overwritten'):
        convert_file(source, tmp_path / '.' / 'official.pth')
    with pytest.raises(ConversionError, match='no such folder'):
        convert_file(source, tmp_path / 'nowhere' / 'ours.pth')


def test_command_line(tmp_path, monkeypatch, capsys):
    tool = runpy.run_path(str(ROOT / 'tools/convert_official_checkpoint.py'))

    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['convert', *map(str, args)])
        tool['main']()

    official, ours, back = (tmp_path / f'{name}.pth'
                            for name in ('official', 'ours', 'back'))
    torch.save(official_checkpoint('det'), official)
    run(official, ours)
    printed = capsys.readouterr().out
    assert "'det'" in printed and CONFIGS['det'] in printed
    run(ours, back, '--reverse')
    model = load_untrusted(back)['model']
    for name, tensor in official_checkpoint('det')['model'].items():
        assert torch.equal(model[name], tensor), name
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        run(ours, back)
    assert stop.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "under 'model'" in line and 'ours.pth' in line
