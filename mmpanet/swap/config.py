# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Rewrite a config: ``FPN`` becomes ``PANetNeck``, and on request the RoI head becomes PANet's."""

import copy
from typing import Any, List, NamedTuple, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.config.config import LazyObject

from mmdet.models.necks import FPN, PAFPN
from mmdet.registry import MODELS
from mmpanet import models
from mmpanet.models import PANetNeck
from mmpanet.utils.configs import dicts_in, load_config, type_name
from mmpanet.utils.files import PathLike
from mmpanet.utils.model_building import node_at, nodes_along, scope_of
from .backbone_channels import correct_in_channels
from .growth import set_learning_rates
from .model_search import check_types, find_models, necks_of
from .options import SwapOptions
from .roi_head import swap_roi_head
from .types import SwapError, class_of, retype

DEFAULT_OPTIONS = SwapOptions()
# With it the new path of the neck changes nothing before the first step.
WARM_START = dict(warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None)
# Why these necks are not swapped. The first two derive from FPN.
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
    """The result of :func:`plan_swap`."""

    config: Config
    # Paths of the swapped models, for example ('model', 'detector').
    models: List[Tuple[str, ...]]
    # What the user should know and the config does not show.
    notes: List[str]


def swap_config(
    cfg: Union[Config, PathLike],
    roi_head: bool = False,
    warm_start: bool = False,
    fusion: str = 'sum',
    sampling_ratio: Optional[int] = None,
    grow: bool = False,
    roi_head_only: bool = False,
    check_channels: bool = False,
    level_fusion: str = 'max',
) -> Config:
    """Put PANet into a config whose model has an FPN.

    Each ``FPN`` and each ``PAFPN`` of the model becomes a ``PANetNeck`` with the same arguments. It may stand alone or
    in a list of necks, in the model itself or in a model that this one contains (``detector=`` of a tracker).

    Args:
        cfg: The config, its path, or a name such as ``mmdet::...``. The config itself is not changed.
        roi_head: Also swap the RoI head: adaptive feature pooling, PANet's box heads and, if there is a mask head,
            fully-connected fusion.
        warm_start: Start the new path without an effect: without norm and activation, with stride-2 convolutions of
            zero and 3x3 convolutions of identity. The neck computes the same as the FPN before the first step.
        fusion: How the two paths are fused: 'sum', 'concat' or 'weighted', see :class:`mmpanet.models.PANetNeck`.
        sampling_ratio: With ``roi_head``: the number of samples per bin along each axis, where the RoIAlign of the
            config derives it from the size of the RoI (0). With 0 the config keeps its 0. Defaults to None, which is
            2, as in the official code, and 0 with ``grow``.
        grow: Start as the trained FPN model, in the RoI heads too. The new path of the neck gets gates, zero at the
            start. With ``roi_head`` each RoI is pooled from its own level first, and the heads get gates for the other
            levels. Gates learn with up to 30 times the learning rate and without weight decay. It needs the checkpoint
            of the old model, see :func:`swap_checkpoint`. It is an extension of ours.
        roi_head_only: Swap the RoI head, and leave every neck as it is. It may be any neck.
        check_channels: Run the backbone once, and correct ``in_channels`` of a swapped neck if it does not fit.
        level_fusion: With ``grow``: how the heads fuse the levels, 'max' or 'sum'. Without gates only 'max' starts near
            the old outputs, because all levels begin with the same first layer.

    Returns:
        Config: The new config.

    Raises:
        SwapError: If there is nothing to swap, or if the swap would change the meaning of the config.
        ConfigError: If the config cannot be loaded, or if an argument has a value that is not allowed.

    Examples:
        >>> from mmpanet.swap import swap_config
        >>> cfg = swap_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
        >>> cfg.model.neck.type
        'PANetNeck'
    """
    options = SwapOptions(
        roi_head, warm_start, fusion, sampling_ratio, grow, roi_head_only, check_channels, level_fusion
    )
    return plan_swap(cfg, options).config


def plan_swap(cfg: Union[Config, PathLike], options: SwapOptions = DEFAULT_OPTIONS) -> Swap:
    """Do the same as :func:`swap_config`, and also return what was swapped and notes for the user."""
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    if not isinstance(cfg.get('model'), dict):
        raise SwapError('nothing to swap: the config has no model')
    swapped: List[Tuple[str, ...]] = []
    skipped: List[str] = []
    notes: List[str] = []
    for path, model in find_models(cfg.model):
        where, scope = '.'.join(path), scope_of(cfg, path)
        check_types(model, path)
        if options.roi_head_only:
            if not model.get('roi_head'):
                skipped.append(f'{where}: it has no roi_head')
                continue
        else:
            necks, reason = _find_necks(model, scope)
            if not necks:
                if options.swaps_roi_head and model.get('roi_head'):
                    reason += '; with --roi-head-only its RoI head can be swapped'
                skipped.append(f'{where}.neck: {reason}')
                continue
            fpns = [neck for neck in necks if class_of(neck['type'], scope) is not PANetNeck]
            if not fpns and not options.swaps_roi_head:
                skipped.append(f'{where}.neck: it is a PANetNeck already')
                continue
            if not fpns and (options.warm_start or options.fusion != 'sum'):
                asked = 'warm_start=True' if options.warm_start else f'fusion={options.fusion!r}'
                raise SwapError(
                    f'{where}.neck: it is a PANetNeck already and stays as it is, so {asked} has nothing to change; '
                    'with grow=True the heads start with the outputs of the old model'
                )
            for neck in fpns:
                if options.grow and class_of(neck['type'], scope) is PAFPN:
                    raise SwapError(f'{where}.neck: a PAFPN cannot grow, because its path is not the one of PANet')
                _swap_neck(neck, scope, options, notes)
        if options.swaps_roi_head:
            swap_roi_head(model, path, scope, options, notes)
        if options.check_channels and not options.roi_head_only:  # the neck may be any, with its own in_channels
            correct_in_channels(cfg, path, notes)
        swapped.append(path)
        for end, node in enumerate(nodes_along(cfg, path), start=1):
            _note_pretrained(node, path[:end], options.swaps_roi_head, notes)
    if not swapped:
        raise SwapError('nothing to swap: ' + ('; '.join(skipped) or 'no model in this config has a neck'))
    if cfg.get('load_from'):
        notes.append(_note_of_old_checkpoint('load_from', cfg.load_from, options.swaps_roi_head))
    if options.grow:
        set_learning_rates(cfg, notes)
    elif options.swaps_roi_head and options.warm_start:
        notes.append(
            '--warm-start with --roi-head: the neck starts exactly as the FPN. The RoI head starts with the first '
            'layer of the old head on each level, which needs the old checkpoint (--checkpoint). Its outputs are '
            'close to the old ones but not equal, because each RoI is now pooled from all levels.'
        )
    _import_mmpanet(cfg)
    return Swap(cfg, swapped, notes)


def leave_out_run(swap: Swap) -> None:
    """Leave out where the old run wrote to, which a config that a run has written says.

    The new run would replace the checkpoints of the old one.
    """
    if swap.config.get('work_dir') or swap.config.get('resume'):
        swap.config.work_dir, swap.config.resume = None, False
        swap.notes.append('work_dir and resume of the old run are left out: the new run gets a folder of its own')


def start_from(swap: Swap, checkpoint: str, path: Tuple[str, ...]) -> None:
    """Let the new config start from a swapped checkpoint, whose weights are those of the model at ``path``."""
    key = 'load_from'
    if path == ('model',):
        swap.config.load_from = checkpoint
    else:
        model = node_at(swap.config, path)
        model.init_cfg, key = dict(type='Pretrained', checkpoint=checkpoint), f'{".".join(path)}.init_cfg'
    swap.notes[:] = [note for note in swap.notes if not note.startswith(f'{key} still is ')]
    swap.notes.append(f'{key} is {checkpoint} in the new config')


def _find_necks(model: dict, scope: Optional[str]) -> Tuple[List[dict], str]:
    """Find the necks of a model that can be swapped, and the reasons why others cannot."""
    found, reasons = [], []
    for neck in necks_of(model):
        neck_class = class_of(neck['type'], scope)
        if neck_class in (FPN, PAFPN, PANetNeck):
            found.append(neck)
            continue
        name = type_name(neck['type'])
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
    return found, '; '.join(reasons)


def _swap_neck(neck: dict, scope: Optional[str], options: SwapOptions, notes: List[str]) -> None:
    was_pafpn = class_of(neck['type'], scope) is PAFPN
    neck['type'] = retype(neck['type'], PANetNeck, scope)
    if options.fusion != 'sum':
        neck['fusion'] = options.fusion
    if was_pafpn:
        if options.warm_start and options.fusion != 'sum':
            raise SwapError(
                f'fusion={options.fusion!r} with warm_start=True: a PAFPN adds its two paths, so its warm start needs '
                "fusion='sum'"
            )
        conv_cfg = neck.get('conv_cfg') or dict(type='Conv2d')
        if options.warm_start and type_name(conv_cfg.get('type')) not in ('Conv', 'Conv2d'):
            raise SwapError(
                f'warm_start=True: a PAFPN with conv_cfg={conv_cfg!r} cannot start warm, because the path of a '
                'warm start has plain convolutions'
            )
        if options.warm_start:
            neck.update(warm_start=True, bottom_up_act_cfg=neck.get('act_cfg'))
        notes.append(
            "The stride-2 convolutions of PAFPN read the sum before the 3x3 convolution, and PANet's read the finished "
            'level. With the weights of the PAFPN and --warm-start, N2 and N3 stay equal; N4 and above do not.'
        )
    elif options.grow:
        neck['path_gate'] = True
    elif options.warm_start:
        neck.update(WARM_START)


def _note_pretrained(node: Any, path: Tuple[str, ...], roi_head: bool, notes: List[str]) -> None:
    """Add a note if ``init_cfg`` of what stands at ``path`` names the checkpoint of a whole model."""
    init_cfgs = (node.get('init_cfg') or []) if isinstance(node, dict) else []
    for init_cfg in [init_cfgs] if isinstance(init_cfgs, dict) else init_cfgs:
        if type_name(init_cfg.get('type', '')) in ('Pretrained', 'PretrainedInit'):
            note = _note_of_old_checkpoint(f'{".".join(path)}.init_cfg', init_cfg['checkpoint'], roi_head)
            if note not in notes:  # two swapped models may stand in one
                notes.append(note)


def _note_of_old_checkpoint(key: str, checkpoint: str, roi_head: bool) -> str:
    consequence = (
        "the first layers of its RoI heads do not fit PANet's"
        if roi_head
        else 'its weights fit, and the new path is initialized'
    )
    return f'{key} still is {checkpoint}: {consequence}. Swap it too, with --checkpoint and --out-checkpoint.'


def _import_mmpanet(cfg: Config) -> None:
    """Add ``mmpanet`` to ``custom_imports``. In a new-style config, which has none, our types become classes."""
    if is_new_style(cfg):
        _name_classes(cfg.model)
        return
    custom_imports = dict(cfg.get('custom_imports') or dict(imports=[], allow_failed_imports=False))
    imports = custom_imports['imports']
    imports = [imports] if isinstance(imports, str) else list(imports)
    if 'mmpanet' not in imports:
        custom_imports['imports'] = [*imports, 'mmpanet']
        cfg.custom_imports = custom_imports


def _name_classes(model: Any) -> None:
    """Put our classes in place of their names, which a new-style config may have too."""
    for _, node in dicts_in(model, 'model'):
        kind = node.get('type')
        name = kind.rpartition('.')[2] if isinstance(kind, str) else ''
        if name in models.__all__:
            node['type'] = LazyObject('mmpanet.models', name)


def is_new_style(cfg: Config) -> bool:
    """Whether a config was written with ``read_base()`` and classes for types."""
    return bool(getattr(cfg, '_imported_names', None))
