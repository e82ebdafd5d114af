# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import logging
import os

# Several workers share the cores (see `make test`), so each computes with one thread. OpenMP reads both when torch is
# imported; processes that tests start inherit them.
os.environ['OMP_NUM_THREADS'] = '1'
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import pytest
import quick_mmengine
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.visualization import Visualizer

import mmpanet  # noqa: F401  registers the modules
from mmdet.visualization import DetLocalVisualizer

quick_mmengine.make_quick()
quick_mmengine.leave_out_of_collections()


@pytest.fixture(autouse=True, scope='session')
def mmdet_scope():
    """Build from mmdet's registry, with one thread, without the init log."""
    init_default_scope('mmdet')
    MMLogger.get_instance('mmengine').setLevel(logging.ERROR)
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def device():
    """The device of tests marked ``gpu``: $MMPANET_TEST_DEVICE, such as cuda, or the CPU."""
    return torch.device(os.environ.get('MMPANET_TEST_DEVICE', 'cpu'))


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_visualizer():
    """mmengine keeps visualizers by name: a later run in this process would draw into the folder of an earlier one."""
    yield
    for kind in (Visualizer, *Visualizer.__subclasses__(), *DetLocalVisualizer.__subclasses__()):
        kind._instance_dict.clear()


@pytest.fixture
def formatted_configs(monkeypatch):
    """The text of configs as mmengine formats it."""
    monkeypatch.setattr(quick_mmengine.FORMATTER, 'FormatCode', quick_mmengine.FORMAT_CODE)
