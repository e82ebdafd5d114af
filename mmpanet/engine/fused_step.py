# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The fused step of torch's optimizers, on CPUs.

By default torch's optimizers go through the memory several times per step on a CPU. With ``fused=True`` they go through
it once, from torch 2.4 on. Between the two, results differ only by rounding.
"""

from functools import lru_cache
from typing import Any, Dict, Type

import torch
import torch.nn as nn

from mmdet.registry import OPTIMIZERS

# torch has fused steps on CPUs for these, and for Adagrad, which is not measured.
OPTIMIZERS_WITH_FUSED_STEP = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
IMPLEMENTATIONS = ('fused', 'foreach', 'capturable', 'differentiable')  # arguments that choose another step


def with_fused_step(optimizer: Dict[str, Any], model: nn.Module) -> Dict[str, Any]:
    """The config of an optimizer, with ``fused=True`` if all of the model is on a CPU and torch has this step there.

    A config that chooses a step itself (one of :data:`IMPLEMENTATIONS`) stays as it is, and so does the config of any
    other optimizer.

    Args:
        optimizer (dict): A config, such as ``dict(type='SGD', lr=0.02)``.
        model (nn.Module): What it optimizes.
    """
    kind = optimizer.get('type')
    if isinstance(kind, str):
        kind = OPTIMIZERS.get(kind)
    if kind is torch.optim.SGD and optimizer.get('dampening'):
        return optimizer  # with it `add_missing_momentum` would change the result
    on_cpu = all(parameter.device.type == 'cpu' for parameter in model.parameters())
    has_choice = kind in OPTIMIZERS_WITH_FUSED_STEP and not set(IMPLEMENTATIONS) & set(optimizer)
    if on_cpu and has_choice and has_fused_step(kind):
        return dict(optimizer, fused=True)
    return optimizer


def add_missing_momentum(optimizer: torch.optim.Optimizer, *args: Any) -> None:
    """Let the fused step of SGD begin with a parameter that gets its first gradient later than others.

    Such a parameter has no momentum yet, for example because the training unfreezes it. torch's other steps take that
    for a momentum of zero. The fused one stops with a ``TypeError``. Register this with ``register_step_pre_hook``.

    Args:
        optimizer (Optimizer): Any optimizer. Others than fused SGD stay as they are.
        args: What torch hands to such a hook; not used.
    """
    for group in optimizer.param_groups:
        if not (isinstance(optimizer, torch.optim.SGD) and group.get('fused') and group['momentum']):
            continue
        states = [
            (parameter, optimizer.state[parameter]) for parameter in group['params'] if parameter.grad is not None
        ]
        if any(state.get('momentum_buffer') is not None for _, state in states):
            for parameter, state in states:
                if state.get('momentum_buffer') is None:
                    state['momentum_buffer'] = torch.zeros_like(parameter)


@lru_cache(maxsize=None)
def has_fused_step(kind: Type[torch.optim.Optimizer]) -> bool:
    """Whether an optimizer of torch can do a fused step on a CPU."""
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    try:
        kind([parameter], lr=0.1, fused=True).step()  # type: ignore[call-arg]
    except (NotImplementedError, RuntimeError, TypeError):
        return False
    return True


def with_step_of(optimizer: torch.optim.Optimizer, state: Dict[str, Any]) -> Dict[str, Any]:
    """The saved state of an optimizer, with the step that this optimizer takes in place of the one that was saved.

    A training can go on with another torch or on another device, which may lack the saved step. Without this, torch
    restores that choice too.

    Args:
        optimizer (Optimizer): The one that will load the state.
        state (dict): What its ``state_dict`` gave when it was saved.
    """
    groups = []
    for saved, group in zip(state['param_groups'], optimizer.param_groups):
        chosen = {key: group[key] for key in IMPLEMENTATIONS if key in group}
        merged = {**saved, **chosen}
        groups.append({key: merged[key] for key in merged if key in chosen or key not in IMPLEMENTATIONS})
    return dict(state, param_groups=groups) if len(groups) == len(state['param_groups']) else state
