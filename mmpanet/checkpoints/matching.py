# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Whether weights belong to a model, and their names without those of wrappers."""

from collections import OrderedDict
from typing import Any, Dict, Tuple

from torch import Tensor, nn

from mmdet.models import SemiBaseDetector

# DistributedDataParallel (and mmengine's wrappers), and torch.compile
WRAPPERS = ('module.', '_orig_mod.')
STATISTICS = ('running_mean', 'running_var')


def without_wrappers(state_dict: Dict[str, Any]) -> Dict[str, Any]:
    """The state dict of the model inside a wrapper, if all names are a wrapper's; else the same state dict."""
    for prefix in WRAPPERS:
        if state_dict and all(isinstance(name, str) and name.startswith(prefix) for name in state_dict):
            inner = OrderedDict((name[len(prefix) :], value) for name, value in state_dict.items())
            versions = getattr(state_dict, '_metadata', None)
            if isinstance(versions, dict):
                inner._metadata = {  # type: ignore[attr-defined]  # torch keeps the versions of modules there
                    name[len(prefix) :]: version for name, version in versions.items() if f'{name}.'.startswith(prefix)
                }
            return without_wrappers(inner)
    return state_dict


def weights_mismatch(model: nn.Module, state_dict: Dict[str, Tensor], all_of_them: bool = True) -> str:
    """Why a state dict is not the model's, or an empty string.

    Args:
        model: The model.
        state_dict: The weights.
        all_of_them: Whether all parameters of the model and all statistics of its BN layers must be there, or one
            parameter is enough.
    """
    parts = ('student.', 'teacher.')
    if isinstance(model, SemiBaseDetector) and not any(name.startswith(parts) for name in state_dict):
        # mmdet loads the weights of a detector into student and teacher.
        state_dict = {f'{part}{name}': value for part in parts for name, value in state_dict.items()}
    shapes = {name: tuple(value.shape) for name, value in state_dict.items() if hasattr(value, 'shape')}
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    lacking = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if not all_of_them and len(lacking) < len(wanted):
        return ''
    if not lacking:
        return _missing_statistics(model, shapes) if all_of_them else ''
    name = lacking[0]
    held = f'{name} is {shapes[name]} in it' if name in shapes else f'it has no {name}'
    return (
        f"of another model: {len(lacking)} of the {len(wanted)} parameters of the config's model are not in it; "
        f'{held}, and the model takes {wanted[name]}'
    )


def _missing_statistics(model: nn.Module, shapes: Dict[str, Tuple[int, ...]]) -> str:
    """Without its statistics a BN layer normalizes by those of a new layer, and the outputs are wrong."""
    for name, value in model.state_dict().items():
        if name.rpartition('.')[2] in STATISTICS and shapes.get(name) != tuple(value.shape):
            held = f'{name} is {shapes[name]} in it' if name in shapes else f'it has no {name}'
            return f'without the statistics of BN layers: {held}, and the model takes {tuple(value.shape)}'
    return ''
