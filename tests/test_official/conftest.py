# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import zlib
from contextlib import ExitStack
from functools import lru_cache
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from repository import ROOT

from mmdet.registry import MODELS
from mmpanet.checkpoints.official_rules import CONFIGS

DATA = ROOT / 'tests' / 'data' / 'official'
CONFIG_DIR = ROOT / 'configs' / 'official'


def made_weight(name: str, shape, seed: int) -> torch.Tensor:
    """The weight of an official name: tests/data/official/README.md."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    if len(shape) > 1:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith('bias'):
        values = random.standard_normal(shape) * 0.1
    else:
        values = 0.5 + random.random_sample(shape)
        if '.bn' in name or 'downsample.1' in name:
            values /= 2
    return torch.from_numpy(values.astype(np.float32))


@lru_cache(maxsize=3)
def official_checkpoint(kind: str) -> dict:
    """A whole checkpoint in the official form, with the weights that the stored numbers were computed with."""
    description = read_description(kind)
    return with_training_state(
        {name: made_weight(name, shape, description['seed']) for name, shape in description['keys'].items()}
    )


@lru_cache(maxsize=3)
def filled_checkpoint(kind: str) -> dict:
    """A whole checkpoint in the official form whose weights are parts of one tensor, which takes no time to make."""
    shapes = read_description(kind)['keys']
    largest = max(int(np.prod(shape)) for shape in shapes.values())
    pool = torch.rand(largest + 10007, generator=torch.Generator().manual_seed(0)) + 0.5
    model = {}
    for name, shape in shapes.items():
        start, length = zlib.crc32(name.encode()) % 10007, int(np.prod(shape))
        model[name] = pool[start : start + length].view(shape)
    return with_training_state(model)


def read_description(kind: str) -> dict:
    return json.loads((DATA / f'panet_{kind}.json').read_text())


def with_training_state(model: dict) -> dict:
    return dict(step=179999, train_size=235532, batch_size=16, model=model)


def build_model(kind: str) -> torch.nn.Module:
    """The full mmdet model of the official config. Its weights are not even random: they are to be loaded."""
    cfg = Config.fromfile(CONFIG_DIR / CONFIGS[kind]).model
    cfg.backbone.init_cfg = None
    with ExitStack() as stack:
        for name in ('kaiming_uniform_', 'uniform_', 'normal_', 'xavier_uniform_'):
            stack.enter_context(mock.patch.object(torch.nn.init, name))
        model = MODELS.build(cfg)
    return model.eval()


@pytest.fixture(params=list(CONFIGS))
def kind(request) -> str:
    return request.param
