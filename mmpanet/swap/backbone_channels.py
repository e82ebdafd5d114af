# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Find out what maps come out of a backbone, and correct ``in_channels`` of the neck behind it."""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmpanet.models import PANetNeck
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ConfigError
from mmpanet.utils.model_building import build_model, node_at
from .model_search import necks_of

# Edges of the square images that are tried in turn. The first costs least, and some transformers need the second.
IMAGE_SIZES = (128, 224)


class BackboneMaps(NamedTuple):
    """The maps that a backbone gives, from fine to coarse."""

    channels: List[int]
    strides: List[int]  # pixels of the image per pixel of the map


def backbone_maps(cfg: Config, path: Tuple[str, ...] = ('model',)) -> BackboneMaps:
    """Run the backbone of a config once, and look at its maps.

    It runs on torch's ``meta`` device, where nothing is computed. If its code cannot run there, it runs on a small
    image on the CPU.

    Args:
        cfg: The config.
        path: Where the model with the backbone stands in it.

    Raises:
        ConfigError: If the backbone cannot be built, does not run, or does not return maps.
    """
    path = (*path, 'backbone')
    where = '.'.join(path)
    in_channels = node_at(cfg, path).get('in_channels', 3)
    try:
        with torch.device('meta'):
            return _maps_of(build_model(cfg, path), in_channels, 'meta')
    except Exception:  # code that reads values cannot run without values, and may raise anything
        try:
            backbone = build_model(cfg, path)
        except ConfigError:
            raise
        except Exception as fault:  # an argument that the backbone does not take, for example
            raise ConfigError(f'{where} cannot be built: {fault}') from fault
    for size in IMAGE_SIZES:
        try:
            return _maps_of(backbone, in_channels, 'cpu', size)
        except Exception as failure:  # the backbone may be anybody's
            error = failure
    raise ConfigError(f'{where}: on an image of {IMAGE_SIZES[-1]} x {IMAGE_SIZES[-1]} pixels: {error}')


@torch.no_grad()
def _maps_of(backbone: nn.Module, in_channels: int, device: str, size: int = IMAGE_SIZES[-1]) -> BackboneMaps:
    backbone.eval()  # returns None in mmdet's ResNet
    maps = backbone(torch.zeros(1, in_channels, size, size, device=device))
    maps = [maps] if isinstance(maps, Tensor) else list(maps)
    flat = next((one for one in maps if one.dim() != 4), None)
    if flat is not None:
        raise ValueError(f'it gives a tensor of shape {tuple(flat.shape)}, and a neck needs maps of (B, C, H, W)')
    return BackboneMaps([one.size(1) for one in maps], [round(size / one.size(-1)) for one in maps])


def wrong_in_channels(model: dict, channels: Sequence[int]) -> Optional[dict]:
    """The neck that reads a backbone with these channels, if its ``in_channels`` does not fit them.

    Channels of levels that the neck does not use may be wrong, as in mmdet's FPN.
    """
    neck = necks_of(model)[0]  # of ``neck``, and the first of several
    given = neck.get('in_channels')
    if not isinstance(given, (list, tuple)) or len(given) != len(channels):
        return neck
    first, last = neck.get('start_level', 0), neck.get('end_level', -1)
    used = slice(first, None if last in (-1, len(given) - 1) else last + 1)
    return neck if list(given[used]) != list(channels[used]) else None


def correct_in_channels(cfg: Config, path: Tuple[str, ...], notes: List[str]) -> None:
    """Set ``in_channels`` of the neck at ``path`` to what the backbone gives, and append a note if it was wrong.

    A backbone that cannot be built or run here is left alone.
    """
    model = node_at(cfg, path)
    if not (model.get('backbone') and model.get('neck')):
        return
    try:
        maps = backbone_maps(cfg, path)
    except ConfigError:
        return
    neck = wrong_in_channels(model, maps.channels)
    if neck is None or type_name(neck['type']) != PANetNeck.__name__:  # another neck stands before the swapped one
        return
    given = neck.get('in_channels')
    neck['in_channels'] = maps.channels
    note = (
        f'{".".join(path)}.neck.in_channels was {given}, and is {maps.channels} now: the channels that the backbone '
        f'{type_name(model["backbone"]["type"])} gives'
    )
    if not isinstance(given, (list, tuple)) or len(given) != len(maps.channels):
        note += f'. Check num_outs, and the strides of the heads: the maps have the strides {maps.strides}'
    notes.append(note)
