# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Converts the official PyTorch checkpoints of PANet to mmdet's form, and back.

The authors released three R-50 models (github.com/ShuLiu1993/PANet): boxes only with the heavier head, boxes only with
two fcs, and boxes and masks. A file holds a dict with the state dict under ``model``. :func:`from_official` turns it
into a checkpoint that loads strictly into the config of the same model under ``configs/official/``.
:func:`to_official` is the way back.

Two things change besides the names:

* Classes. The official code has the background first. mmdet has it last in the classifier, and not at all in box
  regression and masks. The rows that are left out are kept under ``meta['official']['background']``, so that the way
  there and back returns every bit.
* Norms of the backbone, see :mod:`.official_norms`. A batch norm that is folded on the way back is kept beside the
  official state dict, so that it comes back to the bit too.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, Iterable, Set

import torch
from torch import Tensor

from mmdet.datasets import CocoDataset
from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import PathLike
from .files import check_paths, load_untrusted, save_checkpoint
from .official_norms import batch_statistics, check_shape, folded_batch_norms, kept_batch_norms, restore_batch_norms
from .official_rules import CONFIGS, rules

# Where an official checkpoint that mmpanet wrote keeps what the authors' files do not have.
KEPT_NORMS = 'mmdet_batch_norms'


def detect_kind(names: Iterable[str], by: str = 'official') -> str:
    """Which of the three models a state dict belongs to.

    Args:
        names: Keys of the state dict.
        by: Whose names they are, 'official' or 'ours'.

    Returns:
        'mask', 'det' or 'det_2fc'.

    Raises:
        CheckpointError: If the keys are those of none of them. It names what is missing and what is unknown, compared
            with the nearest model.
    """
    names = set(names)
    differences = {}
    for kind in CONFIGS:
        expected = {getattr(rule, by) for rule in rules(kind)}
        if by == 'ours':
            expected |= set(batch_statistics(kind))
        if names == expected:
            return kind
        differences[kind] = (expected - names, names - expected)
    nearest = min(differences, key=lambda kind: sum(len(keys) for keys in differences[kind]))
    missing, unknown = differences[nearest]
    raise CheckpointError(
        f'not one of the three PANet models ({", ".join(CONFIGS)}); nearest is {nearest!r}, with {_some(missing)} '
        f'missing and {_some(unknown)} unknown. {_advice(names, by)}'
    )


def _advice(names: Set[str], by: str) -> str:
    """What to do with a state dict that does not fit."""
    if by == 'ours':
        return f'Only models of the three configs convert back: {", ".join(CONFIGS.values())}'
    if any(name.startswith('backbone.') for name in names):
        return "These are mmdet's names: convert it with --reverse"
    if names and not any('panet_buttomup' in name for name in names):
        return (
            "It has no bottom-up path ('Conv_Body.panet_buttomup_*'), so it is no PANet: take a checkpoint that was "
            "trained with one of the authors' configs/panet/*.yaml"
        )
    return (
        'If it is a file of the authors, download it again; other backbones, heads and numbers of classes have no '
        'config here'
    )


def from_official(checkpoint: Dict[str, Any]) -> Dict[str, Any]:
    """Convert an official checkpoint.

    Args:
        checkpoint: The content of the official file: a dict with the state dict under ``model``.

    Returns:
        ``state_dict`` in mmdet's names, and ``meta`` with the kind of model, its config, the classes, and the official
        background rows.

    Raises:
        CheckpointError: If keys or shapes are not those of a known model.
    """
    theirs = _tensors(checkpoint, 'model')
    kind = detect_kind(theirs)
    state_dict: Dict[str, Tensor] = OrderedDict()
    background: Dict[str, Tensor] = {}
    for rule in rules(kind):
        tensor = theirs[rule.official]
        check_shape(rule.official, tensor, rule.shape)
        if rule.classes:
            rows = rule.rows_per_class
            first, rest = tensor[:rows], tensor[rows:]
            if rule.classes == 'last':
                tensor = torch.cat([rest, first])
            else:
                tensor, background[rule.official] = rest, first.clone()
        state_dict[rule.ours] = tensor.clone()
    state_dict.update(batch_statistics(kind))
    restore_batch_norms(kind, state_dict, checkpoint.get(KEPT_NORMS))
    official: Dict[str, Any] = dict(kind=kind, config=CONFIGS[kind], background=background)
    if isinstance(checkpoint.get('step'), int):
        official['step'] = checkpoint['step']
    return dict(meta=dict(official=official, dataset_meta=dict(CocoDataset.METAINFO)), state_dict=state_dict)


def to_official(checkpoint: Dict[str, Any]) -> Dict[str, Any]:
    """Convert a checkpoint of one of the official configs back.

    The batch norms of the backbone are folded into a scale and a bias. Those that :func:`from_official` wrote come back
    to the bit. Others are kept under ``mmdet_batch_norms`` for :func:`from_official`; the official code does not read
    that key. Background rows that the checkpoint does not hold, because it was trained here, become zero: the official
    code never reads them at inference.

    Args:
        checkpoint: A checkpoint with ``state_dict``.

    Returns:
        ``model`` with the official state dict, ``step`` if known, and ``mmdet_batch_norms`` if there are any.

    Raises:
        CheckpointError: If keys or shapes are not those of a known model.
    """
    ours = _tensors(checkpoint, 'state_dict')
    kind = detect_kind(ours, by='ours')
    official = (checkpoint.get('meta') or {}).get('official') or {}
    background = official.get('background', {})
    norms = folded_batch_norms(kind, ours)
    model: Dict[str, Tensor] = OrderedDict()
    for rule in rules(kind):
        tensor = norms.get(rule.ours, ours[rule.ours])
        rows = rule.rows_per_class
        expected = rule.shape
        if rule.classes == 'dropped':
            expected = (expected[0] - rows, *expected[1:])
        check_shape(rule.ours, tensor, expected)
        if rule.classes == 'last':
            tensor = torch.cat([tensor[-rows:], tensor[:-rows]])
        elif rule.classes == 'dropped':
            first = background.get(rule.official)
            if first is None:
                first = tensor.new_zeros(rows, *tensor.shape[1:])
            check_shape(f'meta.official.background.{rule.official}', first, (rows, *tensor.shape[1:]))
            tensor = torch.cat([first, tensor])
        model[rule.official] = tensor.clone()
    converted: Dict[str, Any] = dict(model=model)
    if 'step' in official:
        converted['step'] = official['step']
    if norms:
        converted[KEPT_NORMS] = kept_batch_norms(norms, ours)
    return converted


def _tensors(checkpoint: Dict[str, Any], key: str) -> Dict[str, Tensor]:
    """The state dict under ``key``."""
    if not isinstance(checkpoint.get(key), dict):
        advice = ''
        if key == 'model' and 'state_dict' in checkpoint:
            advice = ". It is one of mmdet's: convert it with --reverse"
        elif key == 'state_dict' and 'model' in checkpoint:
            advice = '. It is an official one: leave --reverse out'
        raise CheckpointError(
            f'a checkpoint with the state dict under {key!r} was expected, but this one holds '
            f'{_some(map(str, checkpoint))}{advice}'
        )
    for name, value in checkpoint[key].items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f'{name!r} should be a tensor, but is {type(value).__name__}')
        if not isinstance(name, str):
            raise CheckpointError(f'{name!r} should be the name of a tensor, but is {type(name).__name__}')
    return dict(checkpoint[key])


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    if not names:
        return 'nothing'
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(map(repr, names[:limit])) + more


def convert_file(source: PathLike, target: PathLike, reverse: bool = False) -> str:
    """Convert a file.

    Args:
        source: The official checkpoint, or with ``reverse`` one of mmpanet.
        target: The file to write. It is written whole or not at all.
        reverse: Convert back.

    Returns:
        The kind of model: 'mask', 'det' or 'det_2fc'.

    Raises:
        CheckpointError: If the source cannot be converted, or the target cannot be written there.
    """
    source, target = Path(source), Path(target)
    check_paths(source, target)
    checkpoint = load_untrusted(source)
    try:
        converted = (to_official if reverse else from_official)(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}') from error
    save_checkpoint(converted, target)
    if reverse:
        return detect_kind(converted['model'])
    return converted['meta']['official']['kind']
