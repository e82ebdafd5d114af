# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a model needs to grow: gates in its heads, and learning rates that suit gates and new layers."""

from typing import Any, Dict, Iterator, List

from mmengine.config import Config

from mmpanet.models.layers import GATE_PARAMETERS
from mmpanet.utils.configs import dicts_in, type_name

# Gates start at zero and have to move further than trained weights do.
GATE_LR_MULT = 30
# Adam and its relatives move a number by up to its learning rate in each step, however small its gradient is. With
# 0.045 for the gates the AP of a trained FPN fell to a third. Closed gates make the gradients of the layers behind them
# small, and these layers moved as far as others. With these limits AP falls on average about as deep as that of an FPN
# which is trained on. At a high learning rate seeds are between 2.2 box AP below it and 2.1 above it after an epoch:
# docs/growing.md, "A high learning rate".
LARGEST_GATE_LR = 0.015
LARGEST_LAYER_LR = 1.5e-4
GRADIENT_SCALED = ('SGD', 'ASGD')
CONSTRUCTOR = 'DefaultOptimWrapperConstructor'
# Parts of the names of gates and of layers behind them: PANet's neck, its heads, and the first layers of these.
PARTS_WITH_GATES = {'neck', 'roi_head', 'bbox_head', 'mask_head', 'shared_fcs', 'shared_convs', 'convs', 'levels'}

# Of the norms in mmcv's ConvModule, and in FCModule.
NAMES_OF_NORMS = ('bn', 'gn', 'ln', 'in', 'norm')


def has_level_gates(node: Any) -> bool:
    """Whether a config's dict has a head with ``level_gate=True`` in it."""
    return any(part.get('level_gate') for _, part in dicts_in(node, ''))


def set_learning_rates(cfg: Config, notes: List[str]) -> None:
    """Give the gates and the layers behind them learning rates of their own in ``optim_wrapper``, and append a note.

    Args:
        cfg: The new config, changed in place.
        notes: The notes for the user.
    """
    wrapper = cfg.get('optim_wrapper')
    wrapper = wrapper if isinstance(wrapper, dict) else {}
    optimizer = wrapper.get('optimizer')
    optimizer = optimizer if isinstance(optimizer, dict) else {}
    lr = optimizer.get('lr')
    if not lr or type_name(wrapper.get('constructor') or CONSTRUCTOR) != CONSTRUCTOR:
        missing = f'no {CONSTRUCTOR}' if lr else 'no optimizer with a learning rate'
        notes.append(
            f'optim_wrapper has {missing}: give the gates ({", ".join(GATE_PARAMETERS)}) up to {GATE_LR_MULT} times '
            'the learning rate and no weight decay'
        )
        return
    gate_lr_mult, layer_lr_mult = float(GATE_LR_MULT), 1.0
    if type_name(optimizer.get('type')) not in GRADIENT_SCALED:
        gate_lr_mult = max(1.0, min(gate_lr_mult, float(f'{LARGEST_GATE_LR / lr:.2g}')))
        layer_lr_mult = min(1.0, float(f'{LARGEST_LAYER_LR / lr:.2g}'))
    paramwise = dict(wrapper.get('paramwise_cfg') or {})
    # A decay would close the gates again. The optimizer may have one by default, which decay_mult would not reach.
    custom_keys: Dict[str, dict] = {name: dict(lr_mult=gate_lr_mult, weight_decay=0.0) for name in GATE_PARAMETERS}
    words = f'the gates {gate_lr_mult:g} times the learning rate and no weight decay'
    if layer_lr_mult < 1:
        custom_keys.update(_rates_of_layers(cfg.model, paramwise, layer_lr_mult))
        words += f', and the layers behind them {layer_lr_mult:g} times the learning rate'
    own_keys = paramwise.get('custom_keys') or {}
    paramwise['custom_keys'] = {**own_keys, **custom_keys}
    wrapper['paramwise_cfg'] = paramwise
    notes.append(
        f'optim_wrapper.paramwise_cfg.custom_keys gives {words}. Set these rates again, in the config file, if you '
        'change the learning rate or the optimizer'
    )
    for key in own_keys:
        if PARTS_WITH_GATES.intersection(key.split('.')):
            wins = len(key) > min(map(len, custom_keys))
            parts = 'gates and layers behind them' if layer_lr_mult < 1 else 'gates'
            notes.append(
                f'optim_wrapper.paramwise_cfg.custom_keys.{key} {"may take in" if wins else "leaves out"} {parts}'
                ', because mmengine takes the longest key that fits the name of a parameter: look at the rates in '
                'the log of the training'
            )


def _rates_of_layers(model: Any, paramwise: dict, lr_mult: float) -> Dict[str, dict]:
    """Custom keys for the layers behind gates, with the rates that the config has for all biases and norms.

    mmengine looks at those rates only for parameters that no custom key fits.
    """

    def rates(*names_of_decay: str) -> dict:
        decays = [paramwise[name] for name in names_of_decay if paramwise.get(name) is not None]
        return dict(lr_mult=lr_mult, **(dict(decay_mult=decays[0]) if decays else {}))

    bias = rates('bias_decay_mult', 'flat_decay_mult')
    if paramwise.get('bias_lr_mult') is not None:
        bias['lr_mult'] *= paramwise['bias_lr_mult']
    norm = rates('norm_decay_mult', 'flat_decay_mult')
    bias_of_norm = rates('norm_decay_mult', 'bias_decay_mult', 'flat_decay_mult')
    keys: Dict[str, dict] = {}
    for layer in gated_layers(model):
        keys[layer] = rates()
        keys.update({f'{layer}.{name}': dict(bias) for name in ('bias', 'conv.bias') if bias != rates()})
        for name in NAMES_OF_NORMS:
            keys.update({f'{layer}.{name}': dict(norm)} if norm != rates() else {})
            keys.update({f'{layer}.{name}.bias': dict(bias_of_norm)} if bias_of_norm != norm else {})
    return keys


def gated_layers(node: Any) -> Iterator[str]:
    """Parts of the names of the parameters behind the gates of heads: the layers for all levels except a RoI's own."""
    for _, head in dicts_in(node, ''):
        if head.get('level_gate'):
            yield from (f'.0.levels.{i}' for i in range(1, head.get('num_levels', 4)))
