# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrites a checkpoint for the swapped config: keys mapped, the new path's weights added, nothing dropped unsaid."""

import os
from typing import Dict, List, NamedTuple, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, save_checkpoint
from torch import Tensor

from mmpanet.checkpoints.files import load_untrusted
from mmpanet.models import FCFusionMaskHead, PANetNeck
from mmpanet.models.bbox_heads import PANetBBoxHead
from mmpanet.models.layers import LevelwiseFusion
from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model
from .config import check_target, find_models, is_swapped, necks_of
from .types import SwapError

# What belongs to a run that goes on with the same parameters; a swapped model starts a new one.
OF_THE_RUN = ('optimizer', 'param_schedulers', 'message_hub')
# With this bias the fc of fully-connected fusion stays clear of its ReLU's dead side, see _hide_fc_branch.
FC_BRANCH_BIAS = 1.0


class CarriedWeights(NamedTuple):
    """What became of every key of a state dict."""

    path: Tuple[str, ...]  # the model in the config that it is of
    kept: List[str]  # names of the new model that are names of the old one
    renamed: Dict[str, str]  # other names of the new model, and whose weights they got
    new: List[str]  # names of the new model that got none
    missing: List[str]  # names of the old model that the checkpoint does not have
    unexpected: List[str]  # names of the checkpoint that the old model does not have

    def report(self) -> str:
        """The same for people, a line each."""

        def some(keys):
            return ', '.join(list(keys)[:3]) + (', ...' if len(keys) > 3 else '')

        sources = set(self.renamed.values())
        lines = [f'{len(self.kept)} entries as they were']
        if self.renamed:
            lines.append(
                f'{len(sources)} entries renamed or copied to several levels, which makes {len(self.renamed)} '
                f'({some(self.renamed)})'
            )
        if self.new:
            lines.append(f'{len(self.new)} new entries ({some(self.new)})')
        if self.missing:
            lines.append(
                f'{len(self.missing)} entries were not in the checkpoint and are initialized ({some(self.missing)})'
            )
        if self.unexpected:
            lines.append(
                f'{len(self.unexpected)} entries of the checkpoint are unknown to the old model too and left '
                f'out ({some(self.unexpected)})'
            )
        return '\n'.join(lines)


def swap_checkpoint(
    checkpoint: Union[dict, str, os.PathLike], cfg: Config, new_cfg: Config, out: Union[str, os.PathLike, None] = None
) -> Tuple[dict, CarriedWeights]:
    """Turn a checkpoint of ``cfg`` into one of ``new_cfg``, which :func:`swap_config` made from it.

    Weights that FPN and PANet have in common are kept; the first layer of a RoI head goes to every level; what is
    new is there as the config initializes it. With a warm start (``neck.warm_start``) fully-connected fusion, if
    there is any, starts without effect. The result loads with ``strict=True``.

    Args:
        checkpoint: What mmengine saves, or a bare state dict, or where it is. It is left as it was.
        cfg: The old config.
        new_cfg: The new config.
        out: Where to save the result.

    Returns:
        tuple[dict, CarriedWeights]: The new checkpoint, and what became of every weight. Left out are the states of
        the optimizer, the schedulers and the message hub: they belong to the old parameters.

    Raises:
        SwapError: If the checkpoint is of another model, cannot be read, or is where the result shall lie.
    """
    if not isinstance(checkpoint, dict):
        if out is not None:
            check_target(out, checkpoint, 'checkpoint')
        try:
            return swap_checkpoint(load_checkpoint(checkpoint), cfg, new_cfg, out)
        except SwapError as error:
            named = str(error).replace('the checkpoint', f'the checkpoint {os.fspath(checkpoint)}', 1)
            raise SwapError(named) from error
    loaded: dict = checkpoint
    state_dict = loaded.get('state_dict', loaded)
    path = whose_checkpoint(state_dict, new_cfg)
    old, new = build_model(cfg, path), build_model(new_cfg, path)
    carried = carry_weights(state_dict, old, new, starts_warm(new_cfg), path)
    swapped = {key: value for key, value in loaded.items() if 'state_dict' in loaded and key not in OF_THE_RUN}
    swapped['state_dict'] = new.state_dict()
    if 'ema_state_dict' in loaded:
        swapped['ema_state_dict'] = _swap_average(loaded['ema_state_dict'], old, new, starts_warm(new_cfg))
    if 'cfg' in swapped.get('meta', {}):
        swapped['meta'] = {**swapped['meta'], 'cfg': new_cfg.pretty_text}
    if out is not None:
        save_checkpoint(swapped, os.fspath(out))
    return swapped, carried


def load_checkpoint(path: Union[str, os.PathLike]) -> dict:
    """Read a checkpoint from a file, as data only, or from whatever else mmengine reads checkpoints from.

    Raises:
        SwapError: If it is not there, damaged, or holds what would have to be executed to be read.
    """
    path = os.fspath(path)
    if '://' in path:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    if not os.path.isfile(path):
        raise SwapError(f'there is no checkpoint {path}')
    try:
        checkpoint = load_untrusted(path)
    except CheckpointError as error:
        raise SwapError(str(error)) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get('state_dict', checkpoint), dict):
        raise SwapError(
            f"{path} holds a {type(checkpoint).__name__}; a checkpoint is a state dict, or holds one under 'state_dict'"
        )
    return checkpoint


def carry_weights(
    source: Dict[str, Tensor], old: nn.Module, new: nn.Module, warm_start: bool, path: Tuple[str, ...] = ('model',)
) -> CarriedWeights:
    """Load a state dict of ``old`` into ``new``.

    Args:
        source: The state dict. It passes through ``old``, which brings old formats up to date.
        old: The model with an FPN.
        new: The swapped model.
        warm_start: Start fully-connected fusion without effect.
        path: Where the models stand in their config.
    """
    # Buffers and parameters that the checkpoint lacks keep the new model's initial values.
    try:
        incompatible = old.load_state_dict(source, strict=False)
    except RuntimeError as error:
        raise SwapError(f'the checkpoint does not fit the config: {error}') from error
    old_state = old.state_dict()
    found = old_state.keys() - set(incompatible.missing_keys)
    if not any(isinstance(old_state[key], Tensor) and old_state[key].dim() for key in found):
        raise SwapError("the checkpoint has no weight of this config's model")
    _init_new_parts(new)
    names = _old_names(new, old_state)
    state, kept, renamed, fresh = {}, [], {}, []
    for name, value in new.state_dict().items():
        old_name = names.get(name, name)
        if old_name not in found:
            if old_name not in old_state:
                fresh.append(name)
            state[name] = value
        else:
            if old_state[old_name].shape != value.shape:
                raise SwapError(
                    f'{old_name} is {tuple(old_state[old_name].shape)}, and {name} must be '
                    f'{tuple(value.shape)}: the new config is not a swap of the old one'
                )
            state[name] = old_state[old_name].clone()
            if old_name == name:
                kept.append(name)
            else:
                renamed[name] = old_name
    lost = found - set(kept) - set(renamed.values())
    if lost:
        raise SwapError(f'the new config has no place for {sorted(lost)[:3]}: it is not a swap of the old one')
    new.load_state_dict(state, strict=True)
    if warm_start:
        _hide_fc_branches(new, fresh)
    return CarriedWeights(
        path, kept, renamed, fresh, list(incompatible.missing_keys), list(incompatible.unexpected_keys)
    )


def _init_new_parts(model: nn.Module) -> None:
    with quiet_logger():
        for module in model.modules():
            if isinstance(module, (PANetNeck, PANetBBoxHead, FCFusionMaskHead)) and not module.is_init:
                module.init_weights()


def _old_names(model: nn.Module, old_state: Dict[str, Tensor]) -> Dict[str, str]:
    """Names of the new model that had another one in the old model."""
    names = {}
    for prefix, module in model.named_modules():
        prefix = f'{prefix}.' if prefix else ''
        if isinstance(module, LevelwiseFusion):
            for name in module.state_dict():  # levels.<level>.<name in the layer>
                in_layer = name.split('.', 2)[2]
                # The old layer had the same levels, none, or one.
                candidates = (name, in_layer, f'levels.0.{in_layer}')
                names[prefix + name] = next(
                    (prefix + one for one in candidates if prefix + one in old_state), prefix + in_layer
                )
        elif isinstance(module, PANetNeck):
            for name in module.state_dict():
                if name.startswith('bottom_up_convs.'):  # PAFPN has such convs under another name
                    names[prefix + name] = prefix + name.replace('bottom_up_convs.', 'pafpn_convs.', 1)
    return names


def _hide_fc_branches(model: nn.Module, new: List[str]) -> None:
    """Those that are among the new names; one that was trained already stays."""
    for prefix, module in model.named_modules():
        if isinstance(module, FCFusionMaskHead) and f'{prefix}.mask_fc.weight' in new:
            _hide_fc_branch(module)


def _hide_fc_branch(head: FCFusionMaskHead) -> None:
    """Let fully-connected fusion add nothing, and learn from the first step all the same.

    A fc at zero would add zero, but its ReLU would pass no gradient back, ever. So it starts as a constant on the
    side of the ReLU that does, and the bias of the logits takes that off again.
    """
    bias = getattr(head.conv_logits, 'bias', None)
    if head.fc_fusion != 'sum' or bias is None:
        raise SwapError(
            f'mask_head.fc_fusion={head.fc_fusion!r}, conv_logits.bias={bias}: a warm start needs the sum, '
            'and a bias to take its start from'
        )
    with torch.no_grad():
        head.mask_fc.weight.zero_()
        head.mask_fc.bias.fill_(FC_BRANCH_BIAS)
        bias.sub_(FC_BRANCH_BIAS)


def starts_warm(cfg: Config) -> bool:
    """Whether a config was swapped with a warm start."""
    return any(neck.get('warm_start') for _, model in find_models(cfg.model) for neck in necks_of(model))


def whose_checkpoint(state_dict: Dict[str, Tensor], new_cfg: Config) -> Tuple[str, ...]:
    """Path of the model that a checkpoint is of: the whole one, or the detector that a tracker holds."""
    for path, model in find_models(new_cfg.model):
        if path != ('model',) and is_swapped(model):
            # A semi-supervised model has its detector twice, under these names.
            of_the_whole = (f'{".".join(path[1:])}.', 'student.', 'teacher.')
            if not any(name.startswith(of_the_whole) for name in state_dict):
                return path
    return ('model',)


def _swap_average(
    ema_state_dict: Dict[str, Tensor], old: nn.Module, new: nn.Module, warm_start: bool
) -> Dict[str, Tensor]:
    """The same for the averaged weights of mmengine's EMAHook, which are called ``module.*``."""
    weights = {key[len('module.') :]: value for key, value in ema_state_dict.items() if key.startswith('module.')}
    others = {key: value for key, value in ema_state_dict.items() if not key.startswith('module.')}
    trained = {name: value.clone() for name, value in new.state_dict().items()}
    carry_weights(weights, old, new, warm_start)
    average = {f'module.{name}': value.clone() for name, value in new.state_dict().items()}
    new.load_state_dict(trained)
    return {**others, **average}
