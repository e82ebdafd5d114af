# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""torch's safe loader reads mmengine's checkpoints once mmpanet is imported, and still refuses hostile ones."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

import mmpanet  # noqa: F401
from mmpanet.checkpoints.known_content import listed_methods_only

checks_globals = pytest.mark.skipif(
    tuple(int(part) for part in torch.__version__.split('.')[:2]) < (2, 6), reason='torch.load checks globals since 2.6'
)


@pytest.fixture
def checkpoint(tmp_path):
    """What Runner.save_checkpoint writes beside the weights, numbers of several types in it."""
    hub = MessageHub('test_safe_globals')
    for loss in (3.0, 2.0, np.float32(1.0), torch.tensor(0.5)):
        hub.update_scalar('train/loss', loss)
    hub.update_info('iter', 4)
    hub.update_info('epoch_length', np.int64(2))
    hub.update_info('best', np.float64(0.25))
    hub.update_info('histogram', np.arange(3, dtype=np.float32))
    path = tmp_path / 'checkpoint.pth'
    torch.save(dict(state_dict=dict(weight=torch.ones(2)), message_hub=hub.state_dict()), path)
    return path


def test_reads_a_message_hub(checkpoint):
    loaded = torch.load(checkpoint, map_location='cpu')['message_hub']
    hub = MessageHub('test_safe_globals_loaded')
    hub.load_state_dict(loaded)
    loss = hub.get_scalar('train/loss')
    assert loss.data[0].tolist() == [3.0, 2.0, 1.0, 0.5]
    assert loss.statistics('min') == 0.5 and loss.statistics('mean', 2) == 0.75
    assert hub.get_info('histogram').tolist() == [0, 1, 2]
    assert hub.get_info('best') == 0.25


@checks_globals
def test_needs_the_import(checkpoint):
    """Without mmpanet the same file is refused: the list is what makes the difference."""
    code = f'import mmengine.logging, torch; torch.load({str(checkpoint)!r})'
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode != 0 and 'UnpicklingError' in result.stderr


def run_command(command):
    """A pickle of os.system(command)."""

    class Hostile:
        def __reduce__(self):
            return os.system, (command,)

    return Hostile()


def read_attribute(owner, name):
    """A pickle of getattr(owner, name)."""

    class Hostile:
        def __reduce__(self):
            return getattr, (owner, name)

    return Hostile()


@checks_globals
@pytest.mark.parametrize('name', ['__init__', '__class__', '__setstate__', 'statistics'])
def test_refuses_to_read_other_attributes(tmp_path, name):
    path = tmp_path / 'hostile.pth'
    torch.save(read_attribute(HistoryBuffer, name), path)
    with pytest.raises(pickle.UnpicklingError, match='may not read attribute'):
        torch.load(path)


@checks_globals
def test_refuses_to_read_attributes_of_other_classes(tmp_path):
    path = tmp_path / 'hostile.pth'
    torch.save(read_attribute(np.ndarray, 'tofile'), path)
    with pytest.raises(pickle.UnpicklingError, match='may not read attribute'):
        torch.load(path)


@checks_globals
@pytest.mark.parametrize(
    'wrap',
    [
        lambda hostile: hostile,
        lambda hostile: dict(state_dict={}, message_hub=dict(log_scalars=dict(loss=hostile))),
        lambda hostile: np.array([hostile], dtype=object),
    ],
    ids=['bare', 'in the message hub', 'in an array'],
)
def test_refuses_a_hostile_pickle(tmp_path, wrap):
    traces = tmp_path / 'traces'
    path = tmp_path / 'hostile.pth'
    torch.save(wrap(run_command(f'touch {traces}')), path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    assert not traces.exists()


def test_statistics_are_the_methods_themselves():
    for name in ('min', 'max', 'current', 'mean'):
        assert listed_methods_only(HistoryBuffer, name) is getattr(HistoryBuffer, name)
