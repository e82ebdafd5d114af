# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Load the weights of a model with an FPN into the swapped model."""

from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmpanet.models import FCFusionMaskHead, PANetNeck
from mmpanet.models.bbox_heads import PANetBBoxHead
from mmpanet.models.layers import LevelwiseFusion
from mmpanet.utils.errors import CheckpointError, ConfigError
from mmpanet.utils.logging import quiet_logger
from .warm_start import neutralize_fc_branches

# What semi-supervised models (the first two) and MMOCR's MMDetWrapper call the detector that their configs name
# otherwise.
NAMES_OF_DETECTORS = ('student', 'teacher', 'wrapped_model')


class CarriedWeights(NamedTuple):
    """What became of each name in a state dict."""

    path: Tuple[str, ...]  # where the model stands in the config
    kept: List[str]  # names that both models have
    renamed: Dict[str, str]  # names that only the new model has, with the old names whose weights they got
    new: List[str]  # names of the new model that got no weights of the old one
    missing: List[str]  # names of the old model that the checkpoint does not have
    unexpected: List[str]  # names of the checkpoint that the old model does not have

    def report(self) -> str:
        """A summary with one line for each kind of entry."""
        sources = set(self.renamed.values())
        lines = [f'{len(self.kept)} entries unchanged']
        if self.renamed:
            lines.append(
                f'{len(sources)} entries renamed or copied to several levels, which makes {len(self.renamed)} '
                f'({_first_names(self.renamed)})'
            )
        if self.new:
            lines.append(f'{len(self.new)} new entries ({_first_names(self.new)})')
        if self.missing:
            lines.append(
                f'{len(self.missing)} entries were not in the checkpoint and are initialized '
                f'({_first_names(self.missing)})'
            )
        if self.unexpected:
            lines.append(
                f'{len(self.unexpected)} entries of the checkpoint are not in the old model either and are left '
                f'out ({_first_names(self.unexpected)})'
            )
        return '\n'.join(lines)


def _first_names(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:limit]) + (', ...' if len(names) > limit else '')


def carry_weights(
    source: Dict[str, Tensor], old: nn.Module, new: nn.Module, warm_start: bool, path: Tuple[str, ...] = ('model',)
) -> CarriedWeights:
    """Load a state dict of ``old`` into ``new``.

    Args:
        source: The state dict. It is loaded into ``old`` first, which converts old formats.
        old: The model with an FPN.
        new: The swapped model.
        warm_start: Start fully-connected fusion without an effect.
        path: Where the models stand in their configs.

    Raises:
        CheckpointError: If the state dict does not belong to ``old``.
        ConfigError: If ``new`` is not a swap of ``old``.
    """
    # Weights that the checkpoint does not have keep their initial values in the new model.
    try:
        incompatible = old.load_state_dict(source, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f'the checkpoint does not fit the config: {error}') from error
    old_state = old.state_dict()
    found = old_state.keys() - set(incompatible.missing_keys)
    if not any(isinstance(old_state[key], Tensor) and old_state[key].dim() for key in found):
        raise CheckpointError("the checkpoint has no weight of this config's model")
    _check_parts(incompatible.missing_keys, incompatible.unexpected_keys)
    _init_new_parts(new)
    if incompatible.missing_keys and isinstance(new, BaseModule) and not new.is_init:
        with quiet_logger():
            new.init_weights()  # as the config says, for what the checkpoint does not have
    old_names = _names_in_old_model(new, old_state)
    state: Dict[str, Tensor] = {}
    kept: List[str] = []
    renamed: Dict[str, str] = {}
    new_names: List[str] = []
    for name, value in new.state_dict().items():
        old_name = old_names.get(name, name)
        if old_name not in found:
            if old_name not in old_state:
                new_names.append(name)
            state[name] = value.clone()  # ConvAWS changes its own values while they are loaded
            continue
        if old_state[old_name].shape != value.shape:
            raise ConfigError(
                f'{old_name} is {tuple(old_state[old_name].shape)}, and {name} must be {tuple(value.shape)}: '
                'the new config is not a swap of the old one'
            )
        state[name] = old_state[old_name].clone()
        if old_name == name:
            kept.append(name)
        else:
            renamed[name] = old_name
    lost = found - set(kept) - set(renamed.values())
    if lost:
        raise ConfigError(
            f'the new config has no place for {_first_names(sorted(lost))}: it is not a swap of the old one'
        )
    new.load_state_dict(state, strict=True)
    if warm_start:
        neutralize_fc_branches(new, new_names)
    return CarriedWeights(
        path, kept, renamed, new_names, list(incompatible.missing_keys), list(incompatible.unexpected_keys)
    )


def _check_parts(missing: Sequence[str], unexpected: Sequence[str]) -> None:
    """Raise for a part of the model, such as its RoI head, that lacks weights and has others in their place."""
    lacking, surplus = ({_part_of(name) for name in names} for names in (missing, unexpected))
    for part in sorted(lacking & surplus):
        absent, present = ([name for name in names if name.startswith(f'{part}.')] for names in (missing, unexpected))
        raise CheckpointError(
            f'the checkpoint is of another model: its {part} has {_first_names(present)}, and that of the old config '
            f'has {_first_names(absent)}'
        )


def _part_of(name: str) -> str:
    first, second = (*name.split('.'), '')[:2]
    return f'{first}.{second}' if first in ('detector', *NAMES_OF_DETECTORS) else first


def _init_new_parts(model: nn.Module) -> None:
    with quiet_logger():
        for module in model.modules():
            if isinstance(module, (PANetNeck, PANetBBoxHead, FCFusionMaskHead)) and not module.is_init:
                module.init_weights()


def _names_in_old_model(model: nn.Module, old_state: Dict[str, Tensor]) -> Dict[str, str]:
    """For each weight of the new model that had another name in the old model: its old name."""
    names = {}
    for prefix, module in model.named_modules():
        prefix = f'{prefix}.' if prefix else ''
        if isinstance(module, LevelwiseFusion):
            for name in module.state_dict():  # levels.<level>.<name in the layer>
                if name == 'level_gates':
                    continue
                in_layer = name.split('.', 2)[2]
                # The old layer had the same levels, no levels, or one level.
                candidates = (name, in_layer, f'levels.0.{in_layer}')
                names[prefix + name] = next(
                    (prefix + one for one in candidates if prefix + one in old_state), prefix + in_layer
                )
        elif isinstance(module, PANetNeck):
            for name in module.state_dict():
                # These convolutions have another name in PAFPN.
                if name.startswith('bottom_up_convs.') and prefix + name not in old_state:
                    names[prefix + name] = prefix + name.replace('bottom_up_convs.', 'pafpn_convs.', 1)
    return names
