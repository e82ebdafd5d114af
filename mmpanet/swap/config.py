# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrites a config: ``FPN`` becomes ``PANetNeck`` and, on request, the RoI head PANet's."""

import copy
import os
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

from mmengine.config import Config

import mmpanet
from mmdet.models.necks import FPN, PAFPN
from mmdet.registry import MODELS
from mmpanet.models import PANetNeck
from mmpanet.models.panet_neck import NECK_FUSIONS
from mmpanet.utils.configs import load_config
from .roi_head import swap_roi_head
from .types import SwapError, class_of, name_of, retype

# Why these necks are left alone. Those that derive from FPN come first.
REFUSED_NECKS = {
    'RFP': 'it is an FPN that feeds its output back into the backbone, and PANetNeck does not',
    'FPN_DropBlock': 'it is an FPN with DropBlock on its way down, and PANetNeck would lose it',
    'FPN_CARAFE': 'its upsampling is a learned CARAFE, which no argument of PANetNeck stands for',
    'HRFPN': "it resizes HRNet's branches into one map and has no top-down path to build on",
    'NASFPN': 'its searched paths go both ways already',
    'NASFCOS_FPN': 'its searched cells take the place of the top-down path',
    'FPG': 'its grid of pathways goes bottom-up already',
    'YOLOXPAFPN': 'it has a bottom-up path already, of YOLO blocks',
    'CSPNeXtPAFPN': 'it has a bottom-up path already, of CSPNeXt blocks',
    'YOLOV3Neck': 'its levels are YOLO blocks, with no FPN in them',
    'ChannelMapper': 'it only maps channels, with no top-down path',
    'DilatedEncoder': 'it makes a single level',
    'SSDNeck': 'it adds coarser levels, with no top-down path',
    'CTResNetNeck': 'it makes a single level',
    'GlobalAveragePooling': 'it makes a vector, not a pyramid',
}


class Swap(NamedTuple):
    """What :func:`plan_swap` returns."""

    config: Config
    # Paths of the swapped models, e.g. ('model', 'detector').
    models: List[Tuple[str, ...]]
    # What the user should know and the config does not show.
    notes: List[str]


def check_target(out: Union[str, os.PathLike], source: Union[str, os.PathLike], what: str) -> None:
    """Refuse to write to ``out`` what is made of ``source``, if that is ``source`` itself or no place for a file."""
    target = Path(out)
    if target.exists() and Path(source).exists() and target.samefile(source):
        raise SwapError(f'{out} is the {what} to swap itself; give the new one another name')
    if target.is_dir():
        raise SwapError(f'{out} cannot be written: it is a folder')
    parent = next((folder for folder in target.absolute().parents if folder.exists()), None)
    if parent is None or not parent.is_dir():
        raise SwapError(f'{out} cannot be written: {parent} is no folder')
    if not os.access(parent, os.W_OK):
        raise SwapError(f'{out} cannot be written: no permission to write into the folder {parent}')


def swap_config(
    cfg: Union[Config, str, os.PathLike],
    roi_head: bool = False,
    warm_start: bool = False,
    fusion: str = 'sum',
    sampling_ratio: int = 2,
) -> Config:
    """Put PANet into a config whose model has an FPN.

    Every ``FPN`` and ``PAFPN`` of the model becomes a ``PANetNeck`` with the same arguments, alone or in a list of
    necks, in the model itself or in one that it holds (``detector=`` of a tracker).

    Args:
        cfg: The config, which is left as it was, its path, or a name such as ``mmdet::...``.
        roi_head: Swap the RoI head too: adaptive feature pooling, PANet's box heads and, for masks, fully-connected
            fusion.
        warm_start: Let the new path start as if it were not there: without norm and activation, stride-2 convs at
            zero, 3x3 convs at identity. The neck then is the FPN before the first step.
        fusion: How the two paths are fused: 'sum', 'concat' or 'weighted', see :class:`mmpanet.models.PANetNeck`.
        sampling_ratio: With ``roi_head``, samples a bin and axis where the RoIAlign leaves their number to the size
            of the RoI (0). 2 is what the official code has; 0 leaves it so, which is slow for a large RoI on N2.

    Returns:
        Config: The new config.

    Raises:
        SwapError: If there is nothing to swap, or nothing that a swap would leave with its meaning.

    Examples:
        >>> from mmpanet.swap import swap_config
        >>> cfg = swap_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
        >>> cfg.model.neck.type
        'PANetNeck'
    """
    return plan_swap(cfg, roi_head, warm_start, fusion, sampling_ratio).config


def plan_swap(cfg, roi_head=False, warm_start=False, fusion='sum', sampling_ratio=2) -> Swap:
    """As :func:`swap_config`, with the places that were swapped and notes for the user."""
    if fusion not in NECK_FUSIONS:
        raise SwapError(f'fusion={fusion!r} must be one of {NECK_FUSIONS}')
    if not isinstance(sampling_ratio, int) or sampling_ratio < 0:
        raise SwapError(
            f'sampling_ratio={sampling_ratio!r} must be a whole number of at least 1, or 0, which leaves '
            'the config as it is'
        )
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    if not isinstance(cfg.get('model'), dict):
        raise SwapError('the config has no model')
    scope = cfg.get('default_scope')
    swapped, left = [], []
    notes: List[str] = []
    for path, model in find_models(cfg.model):
        neck, reason = _find_neck(model, scope)
        if neck is None:
            left.append(f'{".".join(path)}.neck: {reason}')
            continue
        already = class_of(neck['type'], scope) is PANetNeck
        if already and not roi_head:
            left.append(f'{".".join(path)}.neck: it is a PANetNeck already')
            continue
        if not already:
            _swap_neck(neck, scope, warm_start, fusion, notes)
        if roi_head:
            swap_roi_head(model, path, scope, sampling_ratio, notes)
        swapped.append(path)
        _note_pretrained(model, path, roi_head, notes)
    if not swapped:
        raise SwapError('nothing to swap: ' + ('; '.join(left) or 'no model in this config has a neck'))
    if cfg.get('load_from'):
        notes.append(_untouched_checkpoint('load_from', cfg.load_from, roi_head))
    if roi_head and warm_start:
        notes.append(
            "--warm-start and --roi-head: the neck starts as the FPN exactly; the RoI head starts from FPN's "
            'first layer on every level, which needs the old checkpoint (--checkpoint) and is near, not '
            'equal, since every RoI is now pooled on all levels'
        )
    _import_mmpanet(cfg)
    return Swap(cfg, swapped, notes)


def start_from(swap: Swap, checkpoint: str, path: Tuple[str, ...]) -> None:
    """Let the new config start from a swapped checkpoint, which is of the model at ``path``."""
    model, key = swap.config, 'load_from'
    if path == ('model',):
        swap.config.load_from = checkpoint
    else:
        for part in path:
            model = model[part]
        model.init_cfg, key = dict(type='Pretrained', checkpoint=checkpoint), f'{".".join(path)}.init_cfg'
    swap.notes[:] = [note for note in swap.notes if not note.startswith(f'{key} still is ')]
    swap.notes.append(f'{key} is {checkpoint} in the new config')


def find_models(node, path: Tuple[str, ...] = ('model',)) -> Iterator[Tuple[Tuple[str, ...], dict]]:
    """All dicts with a ``neck`` under a config's model, with their paths, outermost first."""
    if isinstance(node, dict):
        if node.get('neck') is not None:
            yield path, node
        for key in list(node.keys()):
            yield from find_models(node[key], (*path, key))
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from find_models(item, (*path, str(i)))


def necks_of(model: dict) -> List[dict]:
    """``model.neck`` as a list: it may be one config or several in a row."""
    return [model['neck']] if isinstance(model['neck'], dict) else list(model['neck'])


def is_swapped(model: dict) -> bool:
    """Whether a model has a ``PANetNeck``."""
    return any(name_of(neck['type']) == PANetNeck.__name__ for neck in necks_of(model))


def _find_neck(model: dict, scope: Optional[str]) -> Tuple[Optional[dict], str]:
    """The part of ``model.neck`` that can be swapped, or why there is none."""
    reasons = []
    for neck in necks_of(model):
        neck_class = class_of(neck['type'], scope)
        if neck_class in (FPN, PAFPN, PANetNeck):
            return neck, ''
        name = name_of(neck['type'])
        if neck_class is None:
            reason = (
                f'it is not registered in scope {scope or "mmdet"!r}; the module that registers it must be '
                'installed and named in custom_imports'
            )
        elif neck_class is MODELS.get(name) and name in REFUSED_NECKS:
            reason = REFUSED_NECKS[name]
        elif isinstance(neck_class, type) and issubclass(neck_class, FPN):
            reason = 'it derives from FPN and does what PANetNeck would not'
        else:
            reason = "it is not mmdet's FPN"
        reasons.append(f'{name} stays, {reason}')
    return None, '; '.join(reasons)


def _swap_neck(neck: dict, scope: Optional[str], warm_start: bool, fusion: str, notes: List[str]) -> None:
    was_pafpn = class_of(neck['type'], scope) is PAFPN
    neck['type'] = retype(neck['type'], PANetNeck)
    if fusion != 'sum':
        neck['fusion'] = fusion
    if was_pafpn:
        if warm_start and fusion != 'sum':
            raise SwapError(f'fusion={fusion!r} and warm_start do not go together for a PAFPN, which adds')
        if warm_start:
            neck['bottom_up_act_cfg'] = neck.get('act_cfg')
        notes.append(
            "PAFPN's stride-2 convs read the sum before the 3x3 conv, PANet's the finished level. With its "
            'weights and --warm-start N2 and N3 are what they were, N4 and above are not.'
        )
    elif warm_start:
        neck.update(warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None)


def _note_pretrained(model: dict, path: Tuple[str, ...], roi_head: bool, notes: List[str]) -> None:
    """Of a whole detector's checkpoint among its ``init_cfg``."""
    init_cfgs = model.get('init_cfg') or []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
        if name_of(init_cfg.get('type', '')) in ('Pretrained', 'PretrainedInit'):
            notes.append(_untouched_checkpoint(f'{".".join(path)}.init_cfg', init_cfg['checkpoint'], roi_head))


def _untouched_checkpoint(key: str, checkpoint: str, roi_head: bool) -> str:
    loses = (
        "the first layers of its RoI heads do not fit PANet's"
        if roi_head
        else 'its weights fit, and the new path starts by itself'
    )
    return f'{key} still is {checkpoint}: {loses}. --checkpoint and --out-checkpoint swap it along.'


def _import_mmpanet(cfg: Config) -> None:
    """Add ``mmpanet`` to ``custom_imports``, which new-style configs do without: their types are classes."""
    if is_new_style(cfg):
        return
    custom_imports = dict(cfg.get('custom_imports') or dict(imports=[], allow_failed_imports=False))
    imports = custom_imports['imports']
    imports = [imports] if isinstance(imports, str) else list(imports)
    if mmpanet.__name__ not in imports:
        custom_imports['imports'] = [*imports, mmpanet.__name__]
        cfg.custom_imports = custom_imports


def is_new_style(cfg: Config) -> bool:
    """Whether a config was written with ``read_base()`` and classes for types."""
    return bool(getattr(cfg, '_imported_names', None))
