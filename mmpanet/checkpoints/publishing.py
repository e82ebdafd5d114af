# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A checkpoint to give away: the weights, and of which config and classes they are; nothing of the training."""

from pathlib import Path
from typing import Dict, Union

import torch
from torch import Tensor

from mmpanet.utils.errors import CheckpointError
from .files import check_paths, load_untrusted, save_whole

# What inference and a reader need. The rest (paths of hooks, the state of the run) belongs to the training.
KEPT_META = ('cfg', 'dataset_meta', 'epoch', 'iter', 'seed', 'mmengine_version')


def publish(source: Union[str, Path], target: Union[str, Path], half: bool = False) -> Dict[str, Tensor]:
    """Write the weights of a checkpoint of mmengine's, without the state of optimizer, schedulers and logs.

    Of a run with mmengine's ``EMAHook`` these are the averaged weights, as in its own testing.

    Args:
        source: What mmengine saved, read as data only.
        target: The file to write, whole or not at all.
        half: In float16: half the size. Loaded into a model they are float32 again, rounded to 11 bits.

    Returns:
        The state dict that was written.

    Raises:
        CheckpointError: If the source is no checkpoint, would be overwritten, or holds a value that float16 cannot.
    """
    source, target = Path(source), Path(target)
    check_paths(source, target)
    checkpoint = load_untrusted(source)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict'), dict):
        raise CheckpointError(f"{source}: has no 'state_dict', as a checkpoint of mmengine's has")
    weights = {name: _halved(name, value) if half else value for name, value in checkpoint['state_dict'].items()}
    meta = {key: value for key, value in checkpoint.get('meta', {}).items() if key in KEPT_META}
    save_whole(dict(meta=meta, state_dict=weights), target)
    return weights


def _halved(name: str, value: Tensor) -> Tensor:
    if value.dtype != torch.float32:
        return value
    halved = value.half()
    if torch.isfinite(value).all() and not torch.isfinite(halved).all():
        raise CheckpointError(f'{name} has a value of {value.abs().max():.3g}; float16 ends at 65504')
    return halved
