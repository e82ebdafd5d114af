# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A training killed twenty times goes on from its last whole checkpoint, and ends where one that nobody killed ends.

mmengine promises: epoch and iteration, weights, buffers, state of optimizer and schedulers and the history of the logs
go on from the checkpoint, and so does the order of the images, which follows from seed and epoch. It does not save the
state of the random generators: flips and samples of RoIs after a resume are others than without. Here nothing is drawn
at random, so the end is equal to the bit.
"""

import random
import signal

import pytest
import torch
from killed_training import Training
from mmengine.config import Config
from repository import ROOT
from tiny_training import NOTHING_AT_RANDOM, make_data, run_tool, write_config

from mmdet.registry import MODELS
from mmpanet.checkpoints.files import load_untrusted

KILLS = 20
EPOCHS = 30
FPN = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_fpn_shapes.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


def state(work_dir, epochs):
    checkpoint = load_untrusted(work_dir / f'epoch_{epochs}.pth')
    history = checkpoint['message_hub']['log_scalars']
    return dict(
        weights=checkpoint['state_dict'],
        optimizer=checkpoint['optimizer'],
        averaged=checkpoint.get('ema_state_dict'),
        schedulers=checkpoint['param_schedulers'],
        progress=(checkpoint['meta']['epoch'], checkpoint['meta']['iter']),
        losses={name: torch.as_tensor(history[name].data[0]) for name in history if 'loss' in name},
    )


def assert_equal(one, other, name='state'):
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    elif isinstance(one, dict):
        assert list(one) == list(other), name
        for key in one:
            assert_equal(one[key], other[key], f'{name}.{key}')
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), name
        for index, pair in enumerate(zip(one, other)):
            assert_equal(*pair, f'{name}[{index}]')
    else:
        assert one == other, name


def settings(epochs):
    return NOTHING_AT_RANDOM + (
        f"train_cfg['max_epochs'] = {epochs}\n"
        "default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=1, max_keep_ckpts=1)\n"
        "log_level = 'INFO'\n"
    )


def kill_again_and_again(tmp_path, config, kills, epochs):
    """Every other kill is inside the write of a checkpoint; returns what each resume went on from."""
    whole = Training([config, '--work-dir', tmp_path / 'whole'], tmp_path / 'whole.log')
    assert whole.wait() == 0, whole.log.read_text()

    rng = random.Random(0)
    work_dir = tmp_path / 'killed'
    words = [config, '--work-dir', work_dir, '--resume']
    begun = []

    def begin(log):
        lines = [line for line in log.read_text().splitlines() if 'resumed epoch' in line]
        begun.append(int(lines[0].split('resumed epoch: ')[1].split(',')[0]) if lines else 0)

    for kill in range(kills):
        log = tmp_path / f'kill_{kill}.log'
        where = dict(cut=kill) if kill % 2 else dict(stop=rng.randrange(14))
        assert Training(words, log, **where).wait() == -signal.SIGKILL, log.read_text()
        if kill % 2:
            assert len(list(work_dir.glob('.*.pth.*'))) == 1  # it was cut off
        begin(log)
    last = Training(words, tmp_path / 'last.log')
    assert last.wait() == 0, last.log.read_text()
    begin(last.log)
    assert_equal(state(tmp_path / 'whole', epochs), state(work_dir, epochs))
    assert not list(work_dir.glob('.*.pth.*'))
    return begun


@pytest.mark.slow
def test_twenty_kills(tmp_path, data):
    begun = kill_again_and_again(tmp_path, write_config(tmp_path / 'tiny.py', data, settings(EPOCHS)), KILLS, EPOCHS)
    assert begun == sorted(begun)  # never behind where it was
    assert len(begun) == KILLS + 1 and begun[-1] > 0
    print(f'epochs gone on from, at each of {KILLS} resumes: {begun[1:]}')


def test_two_kills(tmp_path, data):
    begun = kill_again_and_again(tmp_path, write_config(tmp_path / 'tiny.py', data, settings(5)), 2, 5)
    assert begun == sorted(begun) and begun[-1] > 0


def test_two_kills_of_a_grown_model_with_averaged_weights(tmp_path, data):
    """PANet grown out of an FPN, whose gates have a learning rate of their own."""
    hook = "custom_hooks = [dict(type='EMAHook', momentum=0.1)]\n"
    fpn = write_config(tmp_path / 'fpn.py', data, settings(5) + hook, base=FPN)
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(fpn).model).state_dict()), tmp_path / 'fpn.pth')
    words = ['--roi-head', '--grow', '--checkpoint', tmp_path / 'fpn.pth', '--out-checkpoint', tmp_path / 'grown.pth']
    run_tool('swap_neck', fpn, *words, '--out', tmp_path / 'grown.py')
    begun = kill_again_and_again(tmp_path, tmp_path / 'grown.py', 2, 5)
    assert begun == sorted(begun) and begun[-1] > 0
    end = state(tmp_path / 'killed', 5)
    [openings] = (
        value for name, value in end['weights'].items() if name.endswith('bbox_head.shared_fcs.0.level_gates')
    )
    averaged = end['averaged'][next(name for name in end['averaged'] if name.endswith('0.level_gates'))]
    assert openings.abs().max() > 0 and not torch.equal(openings, averaged)
