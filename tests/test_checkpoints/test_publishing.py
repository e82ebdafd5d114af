# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A checkpoint to give away holds the weights, fits its model, and nothing of the training."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from repository import ROOT
from tiny_training import run_tool

import mmpanet  # noqa: F401  lets torch's safe loader read what mmengine saves
from mmdet.registry import MODELS
from mmpanet.checkpoints.files import load_untrusted


def net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


@pytest.fixture
def trained(tmp_path):
    """A model and its checkpoint, as mmengine saves it."""
    torch.manual_seed(0)
    model = net()
    model(torch.randn(2, 3, 8, 8))
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = dict(
        meta=dict(
            cfg='a = 1',
            dataset_meta=dict(classes=('nucleus',)),
            epoch=3,
            iter=9,
            hook_msgs=dict(last_ckpt='/home/someone/epoch_2.pth'),
            time='20260101_000000',
        ),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1])), runtime_info={}, resumed_keys={}),
    )
    torch.save(checkpoint, tmp_path / 'epoch_3.pth')
    return model, tmp_path / 'epoch_3.pth'


@pytest.mark.parametrize('half', [False, True])
def test_weights_config_and_classes_are_kept(trained, half, capsys):
    model, source = trained
    target = source.with_name('model.pth')
    run_tool('publish_model', source, target, *['--half'] * half)
    assert f'{target}: 7 tensors' in capsys.readouterr().out
    published = load_untrusted(target)
    assert published.keys() == {'meta', 'state_dict'}
    assert published['meta'] == dict(cfg='a = 1', dataset_meta=dict(classes=('nucleus',)), epoch=3, iter=9)
    assert published['state_dict']['1.num_batches_tracked'] == 1
    assert published['state_dict']['0.weight'].dtype == (torch.float16 if half else torch.float32)
    loaded = net()
    load_checkpoint(loaded, str(target), strict=True)
    image = torch.randn(2, 3, 8, 8)
    wanted, found = model.eval()(image), loaded.eval()(image)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-2 if half else 0)


def test_a_checkpoint_without_meta(trained):
    _, source = trained
    torch.save(dict(meta=None, state_dict=net().state_dict()), source)
    run_tool('publish_model', source, source.with_name('model.pth'))
    assert load_untrusted(source.with_name('model.pth'))['meta'] == {}


def test_what_is_refused(trained):
    _, source = trained
    target = source.with_name('model.pth')
    checkpoint = load_untrusted(source)
    checkpoint['state_dict']['1.running_var'][1:3] = torch.tensor([float('inf'), 1e6])
    torch.save(checkpoint, source)
    torch.save(dict(model={}), source.with_name('other.pth'))
    torch.save(dict(state_dict=dict(a=[1])), source.with_name('list.pth'))
    source.with_name('cut.pth').write_bytes(source.read_bytes()[:2000])
    for message, *words in [
        ('1.running_var has a value of 1e[+]06; float16 ends at 65504', source, target, '--half'),
        (r"list.pth: state_dict\['a'\] should be a tensor, but is a list", source.with_name('list.pth'), target),
        ('epoch_3.pth: would be overwritten', source, source),
        ('none: no such folder', source, source.with_name('none') / 'model.pth'),
        ("other.pth: has no 'state_dict'", source.with_name('other.pth'), target),
        ('cut.pth: is cut off or damaged', source.with_name('cut.pth'), target),
        ('none.pth: cannot be read', source.with_name('none.pth'), target),
    ]:
        with pytest.raises(SystemExit, match=f'publish_model.py: .*{message}'):
            run_tool('publish_model', *words)
        assert not target.exists()
    run_tool('publish_model', source, target)
    assert load_untrusted(target)['state_dict']['1.running_var'][2] == 1e6


@pytest.mark.parametrize('name', ['mask-rcnn_r18_fpn_48e_dsb2018', 'mask-rcnn_r18_panet-level-sum_48e_dsb2018'])
def test_weights_in_the_repository_are_those_of_their_configs(name):
    """Of the config of that name as it is now, whole, finite, and without the paths of the machine they come from."""
    path = ROOT / 'docs' / 'results' / 'weights' / f'{name}.pth'
    assert len(list(path.parent.iterdir())) == 2  # the one here and the other
    cfg = Config.fromfile(ROOT / 'configs' / 'dsb2018' / 'ablation' / f'{name}.py')
    model = MODELS.build(cfg.model)
    published = load_checkpoint(model, str(path), strict=True)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert published['meta']['dataset_meta']['classes'] == ('nucleus',)
    trained = Config.fromstring(published['meta']['cfg'], '.py')
    assert trained.train_cfg == cfg.train_cfg and trained.optim_wrapper == cfg.optim_wrapper
    assert not re.search(r"['\"]/\w", published['meta']['cfg'])
