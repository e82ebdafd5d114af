# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A checkpoint to give away: its weights, config and classes, without the state of the training."""

from pathlib import Path
from typing import Dict, Union

import torch
from torch import Tensor

from mmpanet.utils.errors import CheckpointError
from .files import check_paths, load_untrusted, save_checkpoint

# What inference and a reader need. The rest (paths of hooks, the state of the run) belongs to the training.
KEPT_META = ('cfg', 'dataset_meta', 'epoch', 'iter', 'seed', 'mmengine_version')


def publish(source: Union[str, Path], target: Union[str, Path], half: bool = False) -> Dict[str, Tensor]:
    """Write the weights of mmengine's checkpoint, without the state of optimizer, schedulers and logs.

    In a run with mmengine's ``EMAHook`` these are the averaged weights, with which it tests too.

    Args:
        source: The checkpoint that mmengine saved. It is read as data only.
        target: The file to write. It is written whole or not at all.
        half: Write float16, which halves the size. Loaded into a model the weights are float32 again, rounded to
            11 bits, and below 6.1e-5 to multiples of 6e-8.

    Returns:
        The state dict that was written.

    Raises:
        CheckpointError: If the source is no checkpoint or would be overwritten, or a value is too large for float16.
    """
    source, target = Path(source), Path(target)
    check_paths(source, target)
    checkpoint = load_untrusted(source)
    if not isinstance(checkpoint.get('state_dict'), dict):
        raise CheckpointError(f"{source}: has no 'state_dict', as a checkpoint of mmengine's has")
    for name, value in checkpoint['state_dict'].items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{source}: state_dict['{name}'] should be a tensor, but is a {type(value).__name__}")
    weights = {name: _halved(name, value) if half else value for name, value in checkpoint['state_dict'].items()}
    meta = {key: value for key, value in (checkpoint.get('meta') or {}).items() if key in KEPT_META}
    save_checkpoint(dict(meta=meta, state_dict=weights), target)
    return weights


def _halved(name: str, value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        return value
    halved = value.half()
    too_large = halved.isinf() & value.isfinite()
    if too_large.any():
        raise CheckpointError(f'{name} has a value of {value[too_large].abs().max():.3g}; float16 ends at 65504')
    return halved
