# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Build the model of a config."""

from typing import Any, Iterator, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmdet.registry import MODELS
from .errors import ConfigError


def build_model(cfg: Config, path: Tuple[str, ...] = ('model',)) -> nn.Module:
    """Build the model at ``path`` of a config, without downloading the weights that the config names.

    Args:
        cfg: The config.
        path: Where the model stands in the config, for example ``('model', 'detector')``.

    Raises:
        ConfigError: If a part of the model is not registered, or does not take its arguments.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model_cfg = without_downloads(node_at(cfg, path))
    scope = scope_of(cfg, path)
    if scope != cfg.get('default_scope'):
        model_cfg['_scope_'] = scope
    try:
        return MODELS.build(model_cfg)
    except (KeyError, ImportError) as error:
        raise ConfigError(
            f"the config's {'.'.join(path)} cannot be built: {error.args[0]}; a module that registers "
            'the missing part must be installed and named in custom_imports'
        ) from error
    except ConfigError:
        raise
    except (TypeError, ValueError, AssertionError) as error:  # of a constructor that does not take its arguments
        raise ConfigError(f"the config's {'.'.join(path)} cannot be built: {error}") from error


def node_at(cfg: Config, path: Tuple[str, ...]) -> Any:
    """What a config has at ``path``. In a list, the key is an index."""
    return [cfg, *nodes_along(cfg, path)][-1]


def nodes_along(cfg: Config, path: Tuple[str, ...]) -> Iterator[Any]:
    """What a config has on the way to ``path``, one node per key. In a list, the key is an index."""
    node: Any = cfg
    for key in path:
        node = node[int(key)] if isinstance(node, (list, tuple)) else node[key]
        yield node


def scope_of(cfg: Config, path: Tuple[str, ...]) -> Optional[str]:
    """The scope in which mmengine builds what stands at ``path``.

    It is the ``default_scope`` of the config, unless a dict on the way has a ``_scope_``. mmengine writes one where a
    config takes a part from a config of another package. MMOCR's ``MMDetWrapper`` builds its ``cfg`` in the scope
    'mmdet'.
    """
    parent, scope = cfg, cfg.get('default_scope')
    for key, node in zip(path, nodes_along(cfg, path)):
        if isinstance(parent, dict) and key == 'cfg' and str(parent.get('type')).endswith('MMDetWrapper'):
            scope = 'mmdet'
        elif isinstance(node, dict):
            scope = node.get('_scope_', scope)
        parent = node
    return scope


def without_downloads(node: Any) -> Any:
    """A copy of a config's dict without the settings that load weights, such as an ``init_cfg`` of 'Pretrained'."""
    if isinstance(node, dict):
        copy = type(node)()
        for key in node:
            value = node[key]
            if key == 'init_cfg' and takes_weights_of_a_file(value):
                continue
            if key in ('pretrained', 'teacher_ckpt') and value:
                value = None if isinstance(value, str) else False  # backbones of timm take True
            copy[key] = without_downloads(value)
        return copy
    if isinstance(node, (list, tuple)):
        return type(node)(without_downloads(item) for item in node)
    return node


def takes_weights_of_a_file(init_cfg: Any) -> bool:
    """Whether an ``init_cfg`` is one of 'Pretrained'."""
    init_cfgs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg or {}]
    return any('checkpoint' in one for one in init_cfgs)


def check_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ConfigError: If torch does not know it, or finds none here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} must be one of torch's devices, such as cuda:0 or cpu") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f'--device {name}: torch finds no such device here') from error
    return device
