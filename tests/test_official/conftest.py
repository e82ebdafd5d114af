# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import zlib
from functools import lru_cache

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
    """A whole checkpoint in the official form."""
    with open(DATA / f'panet_{kind}.json') as file:
        description = json.load(file)
    return dict(
        step=179999,
        train_size=235532,
        batch_size=16,
        model={name: made_weight(name, shape, description['seed']) for name, shape in description['keys'].items()},
    )


def build_model(kind: str) -> torch.nn.Module:
    """The full mmdet model of the official config, weights not set."""
    model = Config.fromfile(CONFIG_DIR / CONFIGS[kind]).model
    model.backbone.init_cfg = None
    return MODELS.build(model).eval()


@pytest.fixture(params=list(CONFIGS))
def kind(request) -> str:
    return request.param
