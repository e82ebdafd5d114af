# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Whether weights are those of a model."""

from typing import Dict

from torch import Tensor, nn


def weights_mismatch(model: nn.Module, state_dict: Dict[str, Tensor], all_of_them: bool = True) -> str:
    """Why a state dict is not the model's, or an empty string.

    It must have all parameters, or, without ``all_of_them``, at least one.
    """
    shapes = {
        name.replace('module.', '', 1) if name.startswith('module.') else name: tuple(value.shape)
        for name, value in state_dict.items()
        if hasattr(value, 'shape')
    }
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    lacking = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if not lacking or not all_of_them and len(lacking) < len(wanted):
        return ''
    name = lacking[0]
    held = f'{name} is {shapes[name]} in it' if name in shapes else f'it has no {name}'
    return (
        f"of another model: {len(lacking)} of the {len(wanted)} parameters of the config's model are not in it; "
        f'{held}, and the model takes {wanted[name]}'
    )
