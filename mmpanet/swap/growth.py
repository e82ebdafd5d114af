# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a model needs to grow: gates in its heads, and an optimizer that opens them."""

from typing import Any, List

from mmengine.config import Config

from mmpanet.models.layers import GATE_PARAMETERS
from .types import name_of

# Gates start at zero and have to move further than trained weights do.
LR_MULT = 30
# Adam and its relatives move a number by up to its learning rate in each step, whatever the gradient is. With 0.045 the
# AP of a trained FPN fell to a third, and with 0.015 it did not: docs/results.md, "PANet in a trained FPN".
LARGEST_LR = 0.015
GRADIENT_SCALED = ('SGD', 'ASGD')


def has_level_gates(node: Any) -> bool:
    """Whether a config's dict has a head with ``level_gate=True`` in it."""
    if isinstance(node, dict):
        return bool(node.get('level_gate')) or any(has_level_gates(node[key]) for key in list(node.keys()))
    return isinstance(node, (list, tuple)) and any(map(has_level_gates, node))


def speed_up_gates(cfg: Config, notes: List[str]) -> None:
    """Give the gates a learning rate of their own in ``optim_wrapper``, and append a note.

    Args:
        cfg: The new config, changed in place.
        notes: The notes for the user.
    """
    wrapper = cfg.get('optim_wrapper')
    # A decay would close the gates again.
    settings = dict(lr_mult=_gate_lr_mult(wrapper), decay_mult=0)
    custom_keys = {name: settings for name in GATE_PARAMETERS}
    times = f'{settings["lr_mult"]:g} times the learning rate'
    if not isinstance(wrapper, dict) or wrapper.get('constructor') not in (None, 'DefaultOptimWrapperConstructor'):
        notes.append(
            f'optim_wrapper has no DefaultOptimWrapperConstructor: give the gates {times} and no weight decay, as '
            f'paramwise_cfg.custom_keys={custom_keys} does there'
        )
        return
    paramwise = dict(wrapper.get('paramwise_cfg') or {})
    paramwise['custom_keys'] = {**(paramwise.get('custom_keys') or {}), **custom_keys}
    wrapper['paramwise_cfg'] = paramwise
    notes.append(
        f'the gates learn with {times} and no weight decay (optim_wrapper.paramwise_cfg.custom_keys). Set it again if '
        'you change the learning rate'
    )


def _gate_lr_mult(wrapper: Any) -> float:
    """How many times the learning rate of the config the gates get: 30, or less with an optimizer such as AdamW."""
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, dict) else None
    if not isinstance(optimizer, dict) or not optimizer.get('lr'):
        return LR_MULT
    if name_of(optimizer.get('type')) in GRADIENT_SCALED:
        return LR_MULT
    return max(1.0, min(LR_MULT, round(LARGEST_LR / optimizer['lr'], 2)))
