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
from tiny_training import NOTHING_AT_RANDOM, make_data, write_config

from mmpanet.checkpoints.files import load_untrusted

KILLS = 20
EPOCHS = 30


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


def state(work_dir, epochs):
    checkpoint = load_untrusted(work_dir / f'epoch_{epochs}.pth')
    history = checkpoint['message_hub']['log_scalars']
    return dict(
        weights=checkpoint['state_dict'],
        optimizer=checkpoint['optimizer'],
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


def kill_again_and_again(tmp_path, data, kills, epochs, max_keep_ckpts):
    """Every other kill is inside the write of a checkpoint; returns what each resume went on from."""
    config = write_config(
        tmp_path / 'tiny.py',
        data,
        NOTHING_AT_RANDOM
        + (
            f"train_cfg['max_epochs'] = {epochs}\n"
            f"default_hooks['checkpoint'] = dict(type='CheckpointHook', interval=1, max_keep_ckpts={max_keep_ckpts})\n"
            "log_level = 'INFO'\n"
        ),
    )
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
    begun = kill_again_and_again(tmp_path, data, KILLS, EPOCHS, max_keep_ckpts=1)
    assert begun == sorted(begun)  # never behind where it was
    assert len(begun) == KILLS + 1 and begun[-1] > 0
    print(f'epochs gone on from, at each of {KILLS} resumes: {begun[1:]}')


def test_two_kills(tmp_path, data):
    begun = kill_again_and_again(tmp_path, data, 2, 5, max_keep_ckpts=1)
    assert begun == sorted(begun)
