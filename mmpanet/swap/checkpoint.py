# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrite a checkpoint for the swapped config. No weight is dropped without notice."""

import os
from pathlib import Path
from typing import Dict, Optional, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmpanet.checkpoints.files import load_untrusted, save_checkpoint
from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import PathLike
from mmpanet.utils.model_building import build_model, node_at, takes_weights_of_a_file
from .model_search import find_models, is_swapped
from .targets import check_target
from .warm_start import has_warm_start
from .weights import NAMES_OF_DETECTORS, CarriedWeights, carry_weights

# The parts of a checkpoint with which a run with the same parameters resumes. A swapped model starts a new run.
RUN_STATE_KEYS = ('optimizer', 'param_schedulers', 'message_hub')


def swap_checkpoint(
    checkpoint: Union[dict, PathLike], cfg: Config, new_cfg: Config, out: Optional[PathLike] = None
) -> Tuple[dict, CarriedWeights]:
    """Turn a checkpoint of ``cfg`` into a checkpoint of ``new_cfg``, which :func:`swap_config` made from ``cfg``.

    The weights that FPN and PANet have in common are kept. The first layer of an RoI head is copied to each level. New
    weights are initialized as the config says, by the same random numbers in each call. With a warm start
    (``neck.warm_start``), fully-connected fusion starts without an effect. The result loads with ``strict=True``.

    Args:
        checkpoint: A checkpoint of mmengine, a bare state dict, or the path of one of them. It is not changed.
        cfg: The old config.
        new_cfg: The new config.
        out: The file to write the result to. Defaults to None, which writes nothing.

    Returns:
        tuple[dict, CarriedWeights]: The new checkpoint, and what became of each weight. The new checkpoint does not
        contain the states of the optimizer, the schedulers and the message hub, because they belong to the old
        parameters.

    Raises:
        CheckpointError: If the checkpoint cannot be read or is of another model, or if ``out`` cannot be written.
        ConfigError: If ``new_cfg`` is not a swap of ``cfg``.
    """
    if not isinstance(checkpoint, dict):
        if out is not None:
            check_target(out, checkpoint, 'checkpoint', CheckpointError)
        try:
            return swap_checkpoint(read_checkpoint(checkpoint), cfg, new_cfg, out)
        except CheckpointError as error:
            named = str(error).replace('the checkpoint', f'the checkpoint {os.fspath(checkpoint)}', 1)
            raise CheckpointError(named) from error
    loaded: dict = checkpoint
    state_dict = loaded.get('state_dict', loaded)
    path = find_model_of_checkpoint(state_dict, new_cfg)
    warm_start = has_warm_start(new_cfg)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed would change those of GPUs too
        old, new = build_model(cfg, path), build_model(new_cfg, path)
        _check_pretrained_parts(node_at(cfg, path), old, state_dict)
        carried = carry_weights(state_dict, old, new, warm_start, path)
    swapped = {key: value for key, value in loaded.items() if 'state_dict' in loaded and key not in RUN_STATE_KEYS}
    swapped['state_dict'] = new.state_dict()
    if 'ema_state_dict' in loaded:
        swapped['ema_state_dict'] = _swap_averaged_weights(loaded['ema_state_dict'], old, new, warm_start)
    meta = swapped.get('meta')
    if isinstance(meta, dict) and 'cfg' in meta:
        swapped['meta'] = {**meta, 'cfg': new_cfg.pretty_text}
    if out is not None:
        Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(swapped, out)
    return swapped, carried


def read_checkpoint(path: PathLike) -> dict:
    """Read a checkpoint from a file, as data only, or from a URL that mmengine can read.

    Raises:
        CheckpointError: If there is no such file, if it is damaged, or if reading it would execute code.
    """
    path = os.fspath(path)
    if '://' in path:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not os.path.isfile(path):
        raise CheckpointError(f'there is no checkpoint {path}')
    checkpoint = load_untrusted(path)
    state_dict = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state_dict, dict):
        raise CheckpointError(
            f"checkpoint {path}: holds a {type(state_dict).__name__} under 'state_dict', where a checkpoint has a dict"
        )
    return checkpoint


def _check_pretrained_parts(model: dict, old: nn.Module, state_dict: Dict[str, Tensor]) -> None:
    """Refuse to write random weights for a part that the config takes from another file."""
    for name, part in old.named_children():
        is_pretrained = isinstance(model.get(name), dict) and takes_weights_of_a_file(model[name].get('init_cfg'))
        if is_pretrained and part.state_dict() and not any(key.startswith(f'{name}.') for key in state_dict):
            raise CheckpointError(
                f'the checkpoint has no weight of {name}, which the config takes from {name}.init_cfg; give a '
                'checkpoint of the whole model'
            )


def find_model_of_checkpoint(state_dict: Dict[str, Tensor], new_cfg: Config) -> Tuple[str, ...]:
    """Find the model in the config that the weights belong to: the whole model, or the detector inside a tracker."""
    for path, model in find_models(new_cfg.model):
        if path != ('model',) and is_swapped(model):
            prefixes_of_whole_model = tuple(f'{name}.' for name in ('.'.join(path[1:]), *NAMES_OF_DETECTORS))
            if not any(name.startswith(prefixes_of_whole_model) for name in state_dict):
                return path
    return ('model',)


def _swap_averaged_weights(
    ema_state_dict: Dict[str, Tensor], old: nn.Module, new: nn.Module, warm_start: bool
) -> Dict[str, Tensor]:
    """Swap the averaged weights of mmengine's EMAHook, whose names start with ``module.``."""
    prefix = 'module.'
    weights = {key[len(prefix) :]: value for key, value in ema_state_dict.items() if key.startswith(prefix)}
    others = {key: value for key, value in ema_state_dict.items() if not key.startswith(prefix)}
    trained = {name: value.clone() for name, value in new.state_dict().items()}
    carry_weights(weights, old, new, warm_start)
    average = {f'{prefix}{name}': value.clone() for name, value in new.state_dict().items()}
    new.load_state_dict(trained)
    return {**others, **average}
