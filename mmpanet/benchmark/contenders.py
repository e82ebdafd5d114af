# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The models that are compared: configs, or what becomes of one config by names such as ``panet``."""

import os
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Optional, Tuple, Union

import torch.nn as nn
from mmengine.config import Config
from mmengine.runner import load_checkpoint

from mmpanet.swap import SwapError, swap_config
from mmpanet.utils.configs import load_config
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model

BASE = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
BRANCHES = ('bbox', 'mask')
OPTIONS = ('channels_last', 'compile')


class Contender(NamedTuple):
    """One of the models that run side by side."""

    name: str
    cfg: Config
    checkpoint: Optional[str] = None  # trained weights; random ones without
    options: Tuple[str, ...] = ()  # of OPTIONS


def contender(name: str, checkpoint: Optional[str] = None, base: Union[str, os.PathLike] = BASE) -> Contender:
    """A variant of the base config by its name in :data:`VARIANTS`, or a config by its path or ``mmdet::`` name.

    Either may be followed by :data:`OPTIONS`, as in ``panet+compile``.

    Raises:
        SwapError: If there is no such variant, config or option, or if the base has no part that the variant changes.
    """
    model, *options = name.split('+')
    unknown = [option for option in options if option not in OPTIONS]
    if unknown:
        raise SwapError(f'{name}: {unknown[0]!r} must be one of {", ".join(OPTIONS)}')
    if model in VARIANTS:
        return Contender(name, VARIANTS[model].of(load_config(base)), checkpoint, tuple(options))
    if not (model.endswith('.py') or '::' in model):
        raise SwapError(f'{model!r} is neither a config (*.py) nor one of {", ".join(VARIANTS)}')
    return Contender('+'.join([Path(model).stem, *options]), load_config(model), checkpoint, tuple(options))


def build(contender: Contender) -> nn.Module:
    """The model, with random weights or those of its checkpoint."""
    model = build_model(contender.cfg)
    with quiet_logger():
        model.init_weights()
        if contender.checkpoint:
            load_checkpoint(model, contender.checkpoint, map_location='cpu', strict=True)
    return model


def _extractors(cfg: Config):
    """The RoI extractors of a config, by ``bbox_roi_extractor`` and the like."""
    roi_head = cfg.model.get('roi_head')
    if not roi_head:
        raise SwapError(f'model.type={cfg.model.type!r} has no roi_head, and this variant is about RoI features')
    keys = [f'{branch}_roi_extractor' for branch in BRANCHES]
    return [roi_head[key] for key in keys if roi_head.get(key)]


class Variant(NamedTuple):
    """What becomes of a base config whose neck is mmdet's FPN."""

    what: str
    of: Callable[[Config], Config]


def _as_it_is(cfg: Config) -> Config:
    return cfg


def _fixed_sampling(cfg: Config) -> Config:
    for extractor in _extractors(cfg):
        extractor.roi_layer.sampling_ratio = 2
    return cfg


def _fast_pooling(cfg: Config) -> Config:
    cfg = _fixed_sampling(cfg)
    for extractor in _extractors(cfg):
        extractor.type = 'FastSingleRoIExtractor'
    return cfg


def _pafpn(cfg: Config) -> Config:
    cfg.model.neck.type = 'PAFPN'
    return cfg


def _bottom_up(cfg: Config) -> Config:
    return swap_config(cfg)


def _panet(cfg: Config) -> Config:
    return swap_config(cfg, roi_head=True)


def _without_fc_fusion(cfg: Config) -> Config:
    cfg = _panet(cfg)
    if cfg.model.roi_head.get('mask_head'):
        cfg.model.roi_head.mask_head.fc_fusion = None
    return cfg


def _plain(cfg: Config) -> Config:
    cfg = _panet(cfg)
    for extractor in _extractors(cfg):
        extractor.backend = 'roi_align'
    return cfg


VARIANTS: Dict[str, Variant] = {
    'fpn': Variant('the base as it is', _as_it_is),
    'fpn-s2': Variant('with two samples a bin and axis in RoIAlign, as in PANet', _fixed_sampling),
    'fpn-s2-fast': Variant("the same with mmpanet's pooling, one level a RoI", _fast_pooling),
    'pafpn': Variant("mmdet's PAFPN for the FPN", _pafpn),
    'bpa': Variant('bottom-up path augmentation, the neck alone', _bottom_up),
    'bpa-afp': Variant('with adaptive feature pooling too', _without_fc_fusion),
    'panet': Variant('with fully-connected fusion too: all of PANet', _panet),
    'panet-plain': Variant("the same with mmcv's RoIAlign, called level by level", _plain),
}
