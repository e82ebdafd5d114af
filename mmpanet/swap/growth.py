# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a model needs to grow: gates in its heads, and an optimizer that opens them."""

from typing import Any, List

from mmengine.config import Config

from mmpanet.models.layers import GATE_PARAMETERS

# Gates start at zero and have to move further than trained weights do. A decay would close them again.
GATE_SETTINGS = dict(lr_mult=30, decay_mult=0)


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
    custom_keys = {name: GATE_SETTINGS for name in GATE_PARAMETERS}
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict) or wrapper.get('constructor') not in (None, 'DefaultOptimWrapperConstructor'):
        notes.append(
            'optim_wrapper has no DefaultOptimWrapperConstructor: give the gates 30 times the learning rate and no '
            f'weight decay, as paramwise_cfg.custom_keys={custom_keys} does there'
        )
        return
    paramwise = dict(wrapper.get('paramwise_cfg') or {})
    paramwise['custom_keys'] = {**(paramwise.get('custom_keys') or {}), **custom_keys}
    wrapper['paramwise_cfg'] = paramwise
    notes.append('the gates learn with 30 times the learning rate and no weight decay (optim_wrapper.paramwise_cfg)')
