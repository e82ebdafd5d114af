# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Whether weights belong to a model, and their names without those of wrappers."""

from collections import OrderedDict
from typing import Any, Dict, Tuple

from torch import Tensor, nn

from mmdet.models import SemiBaseDetector

# DistributedDataParallel (and mmengine's wrappers), and torch.compile
WRAPPERS = ('module.', '_orig_mod.')
STATISTICS = ('running_mean', 'running_var')

Shapes = Dict[str, Tuple[int, ...]]


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
    shapes: Shapes = {name: tuple(value.shape) for name, value in state_dict.items() if hasattr(value, 'shape')}
    wanted: Shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    lacking = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if lacking and _loads_whole(model, state_dict):
        return ''
    if lacking and (all_of_them or len(lacking) == len(wanted)):
        return (
            f"of another model: {len(lacking)} of the {len(wanted)} parameters of the config's model are not in it; "
            + _difference(lacking[0], shapes, wanted)
        )
    # Without its statistics a BN layer normalizes by those of a new layer, and the outputs are wrong.
    statistics = _shapes_of_statistics(model) if all_of_them else {}
    for name, shape in statistics.items():
        if shapes.get(name) != shape:
            return f'without the statistics of BN layers: {_difference(name, shapes, statistics)}'
    return ''


def _loads_whole(model: nn.Module, state_dict: Dict[str, Tensor]) -> bool:
    """Whether the model finds all its weights by itself, for example under the names of an older version."""
    try:
        return not model.load_state_dict(OrderedDict(state_dict), strict=False).missing_keys
    except RuntimeError:  # of other shapes
        return False


def _shapes_of_statistics(model: nn.Module) -> Shapes:
    state = model.state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if name.rpartition('.')[2] in STATISTICS}


def _difference(name: str, shapes: Shapes, wanted: Shapes) -> str:
    held = f'{name} is {shapes[name]} in it' if name in shapes else f'it has no {name}'
    return f'{held}, and the model takes {wanted[name]}'
