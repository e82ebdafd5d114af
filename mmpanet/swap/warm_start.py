# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A warm start of fully-connected fusion: the swapped mask head starts with the outputs of the old one."""

from typing import List

import torch
import torch.nn as nn
from mmengine.config import Config

from mmpanet.models import FCFusionMaskHead
from .growth import has_level_gates
from .model_search import find_models, necks_of
from .types import SwapError

# The bias at which the fc of fully-connected fusion starts. It keeps the input of the ReLU positive.
FC_BRANCH_BIAS = 1.0


def has_warm_start(cfg: Config) -> bool:
    """Whether a config was swapped with a warm start, or to grow."""
    models = [model for _, model in find_models(cfg.model)]
    necks = [neck for model in models for neck in necks_of(model)]
    return any(neck.get('warm_start') or neck.get('path_gate') for neck in necks) or any(map(has_level_gates, models))


def neutralize_fc_branches(model: nn.Module, new_names: List[str]) -> None:
    """Neutralize the fully-connected branch of each mask head.

    A branch that was trained is not changed.

    Args:
        model: The swapped model, with its weights.
        new_names: The names of the weights that were not taken from the old model.

    Raises:
        SwapError: If a mask head has no form of fully-connected fusion that can be neutral.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, FCFusionMaskHead) and f'{prefix}.mask_fc.weight' in new_names:
            _neutralize_fc_branch(module)


def _neutralize_fc_branch(head: FCFusionMaskHead) -> None:
    """Make the branch add zero to the logits, in a way that lets it learn from the first step on.

    An fc with zero weights and zero bias would add zero, but the ReLU after it would never pass a gradient. The fc
    therefore starts with zero weights and a positive bias, and the bias of the logits is lowered by the same amount.
    """
    bias = getattr(head.conv_logits, 'bias', None)
    if head.fc_fusion != 'sum' or bias is None:
        raise SwapError(
            f'mask_head.fc_fusion={head.fc_fusion!r}, conv_logits.bias={bias}: a warm start needs '
            "fc_fusion='sum' and a conv_logits with a bias"
        )
    with torch.no_grad():
        head.mask_fc.weight.zero_()
        head.mask_fc.bias.fill_(FC_BRANCH_BIAS)
        bias.sub_(FC_BRANCH_BIAS)
