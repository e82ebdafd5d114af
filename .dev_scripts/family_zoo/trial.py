# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Try one config: swap it, build it, write it, train it for one step, and predict."""

import re
import traceback
from pathlib import Path
from typing import Any, Callable, List, Optional

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from swap_zoo.sweep import NotWorkingError, _in_one_process, _smaller, without_initialization
from torch import nn

from mmdet.models.necks import FPN
from mmpanet.swap import SwapError, load_config, swap_config, write_config
from mmpanet.swap.model_search import find_models, necks_of
from mmpanet.swap.types import class_of
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model, scope_of

# Makes the data of a training step or of a prediction: from the config, and the number of images.
MakeData = Callable[[Config, nn.Module, int, bool], dict]


def configs_of(root: Path) -> List[str]:
    """The names of all configs in a folder, without those that are parts of others."""
    paths = [path.relative_to(root) for path in root.rglob('*.py')]
    return sorted(
        path.as_posix() for path in paths if '_base_' not in path.parts and not path.name.startswith('_base_')
    )


def try_config(path: Path, make_data: MakeData) -> Optional[dict]:
    """Try a config. None if it has no FPN."""
    try:
        cfg = load_config(path)
    except Exception as error:  # a config of another package may raise anything
        return dict(load=short(error)) if '_fpn_' in path.name else None
    found = find_fpn(cfg)
    if found is None:
        return None
    where, model = found
    result = dict(
        model=type_name(model['type']),
        neck=' + '.join(type_name(neck['type']) for neck in necks_of(model)),
        roi_head=type_name(model['roi_head']['type']) if model.get('roi_head') else '-',
    )
    swapped = attempt(result, 'neck_swapped', lambda: swap_config(cfg))
    result['roi_head_swapped'] = '-'
    if model.get('roi_head'):
        swapped = attempt(result, 'roi_head_swapped', lambda: swap_config(cfg, roi_head=True)) or swapped
    if swapped is None:
        return result
    with without_initialization():
        if attempt(result, 'built_before', lambda: build(cfg)) is None:
            return result
        if attempt(result, 'built', lambda: build(swapped)) is None:
            return result
    written = Path('swapped.py')
    if attempt(result, 'written', lambda: write_config(swapped, path, written)) is None:
        return result
    run(result, Config.fromfile(written), make_data)
    if result['trained'] is not True or result['predicted'] is not True:
        # Is it the swap, or does the model not take such inputs?
        before: dict = {}
        run(before, cfg, make_data)
        result['before'] = before
    return result


def find_fpn(cfg: Config) -> Optional[tuple]:
    """The first model in a config with an FPN, and where it stands."""
    if not isinstance(cfg.get('model'), dict):
        return None
    for where, model in find_models(cfg.model):
        if any(class_of(neck['type'], scope_of(cfg, where)) is FPN for neck in necks_of(model)):
            return where, model
    return None


def attempt(result: dict, key: str, function: Callable[[], Any]) -> Any:
    """Call a function, and write True or the reason of its failure to the result."""
    try:
        value = function()
    except Exception as error:  # models of other packages may raise anything
        result[key] = short(error)
        return None
    result[key] = True
    return value


def build(cfg: Config) -> nn.Module:
    return build_model(_in_one_process(cfg))


def run(result: dict, cfg: Config, make_data: MakeData) -> None:
    """Train one step and predict, with small heads and few proposals."""
    torch.manual_seed(0)
    cfg = _in_one_process(cfg)
    for counter in ('iter', 'epoch'):
        MessageHub.get_current_instance().update_info(counter, 0)
    for _, model in find_models(cfg.model):
        for key in ('train_cfg', 'test_cfg'):
            if model.get(key):
                model[key] = _smaller(model[key])
        heads = (model.get('roi_head') or {}).get('bbox_head') or []
        for head in [heads] if isinstance(heads, dict) else heads:
            if type_name(head['type']).startswith('PANet'):
                head['fc_out_channels'] = 64  # most of the time would be spent to initialize 1024
    for key in ('train_cfg', 'test_cfg'):
        if isinstance(cfg.model.get(key), dict):
            cfg.model[key] = _smaller(cfg.model[key])
    try:
        model = build_model(cfg)
        with quiet_logger():
            model.init_weights()
    except Exception as error:
        result['trained'] = result['predicted'] = short(error)
        return
    attempt(result, 'trained', lambda: train(model, make_data(cfg, model, 2, True)))
    attempt(result, 'predicted', lambda: predict(model, make_data(cfg, model, 1, False)))


def train(model: nn.Module, data: dict) -> None:
    model.train()
    data = model.data_preprocessor(data, True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    if not torch.isfinite(loss):
        raise NotWorkingError(f'the loss is {loss.item()}')
    loss.backward()
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    ours = re.compile(r'(^|\.)(neck|img_neck|pts_neck|roi_head)\.')
    idle = [name for name, parameter in named if parameter.grad is None and ours.search(name)]
    if idle:
        raise NotWorkingError(f'no gradient for {", ".join(idle[:3])}')
    torch.optim.SGD([parameter for _, parameter in named], lr=1e-9).step()


@torch.no_grad()
def predict(model: nn.Module, data: dict) -> None:
    model.eval()
    data = model.data_preprocessor(data, False)
    for sample in model(**data, mode='predict'):
        found = next(
            (sample.get(key) for key in ('pred_instances', 'pred_instances_3d') if sample.get(key) is not None), None
        )
        if found is None:
            raise NotWorkingError('the sample has no predictions')
        for key in ('scores', 'scores_3d'):
            if key in found and not torch.as_tensor(found[key]).isfinite().all():
                raise NotWorkingError('a predicted score is not finite')


def short(error: BaseException) -> str:
    """One line of an error, with the place of it unless the message says enough."""
    text = re.sub(r'(/[\w.+-]+){2,}/', '', re.sub(r'\s+', ' ', str(error)))
    if isinstance(error, (MMPanetError, SwapError, NotWorkingError)):
        return text[:300]
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f'{type(error).__name__}: {text}'[:300] + f' ({Path(last.filename).name}, {last.name})'
