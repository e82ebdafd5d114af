# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a model needs to grow: gates in its heads, and learning rates that suit gates and new layers."""

from typing import Any, Dict, Iterator, List

from mmengine.config import Config

from mmpanet.models.layers import GATE_PARAMETERS
from .types import name_of

# Gates start at zero and have to move further than trained weights do.
GATE_LR_MULT = 30
# Adam and its relatives move a number by up to its learning rate in each step, however small its gradient is. With
# 0.045 for the gates the AP of a trained FPN fell to a third, and with 0.015 it did not.
LARGEST_GATE_LR = 0.015
# The same optimizers move the new layers as fast as trained ones, while closed gates hide whether they move to their
# advantage. With a tenth of the learning rate AP does not fall behind: docs/results.md, "PANet in a trained FPN".
NEW_LAYER_LR_MULT = 0.1
NEW_LAYERS_OF_NECK = ('downsample_convs', 'bottom_up_convs')
GRADIENT_SCALED = ('SGD', 'ASGD')


def has_level_gates(node: Any) -> bool:
    """Whether a config's dict has a head with ``level_gate=True`` in it."""
    if isinstance(node, dict):
        return bool(node.get('level_gate')) or any(has_level_gates(node[key]) for key in list(node.keys()))
    return isinstance(node, (list, tuple)) and any(map(has_level_gates, node))


def set_learning_rates(cfg: Config, notes: List[str]) -> None:
    """Give gates and new layers learning rates of their own in ``optim_wrapper``, and append a note.

    Args:
        cfg: The new config, changed in place.
        notes: The notes for the user.
    """
    wrapper = cfg.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, dict) else None
    optimizer = optimizer if isinstance(optimizer, dict) else {}
    by_gradient = name_of(optimizer.get('type', '')) in GRADIENT_SCALED
    gate_lr_mult: float = GATE_LR_MULT
    if optimizer.get('lr') and not by_gradient:
        gate_lr_mult = max(1.0, min(gate_lr_mult, round(LARGEST_GATE_LR / optimizer['lr'], 2)))
    of_gates = dict(lr_mult=gate_lr_mult)
    words = f'the gates {gate_lr_mult:g} times the learning rate'
    if optimizer.get('weight_decay') is not None:  # otherwise mmengine refuses decay_mult
        of_gates['decay_mult'] = 0  # a decay would close the gates again
        words += ' and no weight decay'
    custom_keys: Dict[str, dict] = {name: dict(of_gates) for name in GATE_PARAMETERS}
    if not by_gradient:
        custom_keys.update({name: dict(lr_mult=NEW_LAYER_LR_MULT) for name in new_layers(cfg.model)})
        words += f', and the new layers {NEW_LAYER_LR_MULT:g} times the learning rate'
    if not isinstance(wrapper, dict) or wrapper.get('constructor') not in (None, 'DefaultOptimWrapperConstructor'):
        notes.append(
            f'optim_wrapper has no DefaultOptimWrapperConstructor: give {words}, as '
            f'paramwise_cfg.custom_keys={custom_keys} does there'
        )
        return
    paramwise = dict(wrapper.get('paramwise_cfg') or {})
    paramwise['custom_keys'] = {**(paramwise.get('custom_keys') or {}), **custom_keys}
    wrapper['paramwise_cfg'] = paramwise
    notes.append(
        f'the optimizer gives {words} (optim_wrapper.paramwise_cfg.custom_keys). Set them again if you change the '
        'learning rate or the optimizer'
    )


def new_layers(node: Any) -> Iterator[str]:
    """Parts of the names of new parameters: those of the new path, and of the layers for all levels but the own one."""
    if isinstance(node, dict):
        if node.get('warm_start'):
            yield from NEW_LAYERS_OF_NECK
        if node.get('level_gate'):
            yield from (f'.0.levels.{i}' for i in range(1, node.get('num_levels', 4)))
        node = [node[key] for key in list(node.keys())]
    if isinstance(node, (list, tuple)):
        for item in node:
            yield from new_layers(item)
