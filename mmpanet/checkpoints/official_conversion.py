# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The official PyTorch checkpoints of PANet, to mmdet's form and back.

The authors released three R-50 models (github.com/ShuLiu1993/PANet): box-only
with the heavier head, box-only with two fcs, and boxes and masks. The file
holds a dict with the state dict under ``model``. :func:`from_official` turns
it into a checkpoint that loads strictly into the config of the same model
under ``configs/official/``; :func:`to_official` is the way back.

What changes besides names:

* Classes. The official code has the background first; mmdet has it last in
  the classifier and not at all in box regression and masks. The rows that are
  left out are kept under ``meta['official']['background']``, so that the way
  there and back returns every bit.
* Backbone norms. The official code has a frozen scale and bias. They become
  the weight and bias of a BN with mean 0 and variance 1 - eps, which computes
  the same: in float32, 1 - eps + eps is 1. On the way back any other BN is
  folded into a scale and a bias, and kept beside the official state dict, so
  that it comes back to the bit, too.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Dict, Iterable, Iterator, Optional, Set, Tuple, Union

import torch
from torch import Tensor

from mmdet.datasets import CocoDataset
from mmpanet.utils.errors import CheckpointError
from .files import check_paths, load_untrusted, save_whole
from .official_rules import CONFIGS, rules

BN_EPS = 1e-5
BN_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
# Where an official checkpoint of ours keeps what no official one has.
KEPT_NORMS = 'mmdet_batch_norms'


def detect_kind(names: Iterable[str], by: str = 'official') -> str:
    """Which of the three models a state dict belongs to.

    Args:
        names (Iterable[str]): Keys of the state dict.
        by (str): Whose names they are, 'official' or 'ours'.

    Returns:
        str: 'mask', 'det' or 'det_2fc'.

    Raises:
        CheckpointError: If the keys are those of none of them. It names what
            is missing and what is unknown, for the model that is nearest.
    """
    names = set(names)
    differences = {}
    for kind in CONFIGS:
        expected = {getattr(rule, by) for rule in rules(kind)}
        if by == 'ours':
            expected |= set(_batch_statistics(kind))
        if names == expected:
            return kind
        differences[kind] = (expected - names, names - expected)
    nearest = min(differences, key=lambda kind: sum(len(keys) for keys in differences[kind]))
    missing, unknown = differences[nearest]
    raise CheckpointError(
        f'not one of the three PANet models ({", ".join(CONFIGS)}); nearest '
        f'is {nearest!r}, with {_some(missing)} missing and {_some(unknown)} '
        f'unknown. {_advice(names, by)}'
    )


def _advice(names: Set[str], by: str) -> str:
    """What to do with a state dict that does not fit."""
    if by == 'ours':
        return f'Only models of the three configs convert back: {", ".join(CONFIGS.values())}'
    if any(name.startswith('backbone.') for name in names):
        return "These are mmdet's names: convert it with --reverse"
    if names and not any('panet_buttomup' in name for name in names):
        return (
            "It has no bottom-up path ('Conv_Body.panet_buttomup_*') and "
            'so is no PANet: take a checkpoint that was trained with one '
            "of the authors' configs/panet/*.yaml"
        )
    return (
        'If it is a file of the authors, download it again; other '
        'backbones, heads and numbers of classes have no config here'
    )


def from_official(checkpoint: Dict) -> Dict:
    """Convert an official checkpoint.

    Args:
        checkpoint (dict): The content of the official file: a dict with the
            state dict under ``model``.

    Returns:
        dict: ``state_dict`` in mmdet's names and ``meta``, with the kind of
        model, its config, the classes, and the official background rows.

    Raises:
        CheckpointError: If keys or shapes are not those of a known model.
    """
    theirs = _tensors(checkpoint, 'model')
    kind = detect_kind(theirs)
    state_dict, background = OrderedDict(), {}
    for rule in rules(kind):
        tensor = theirs[rule.official]
        _check_shape(rule.official, tensor, rule.shape)
        if rule.classes:
            rows = rule.rows_per_class
            first, rest = tensor[:rows], tensor[rows:]
            if rule.classes == 'last':
                tensor = torch.cat([rest, first])
            else:
                tensor, background[rule.official] = rest, first.clone()
        state_dict[rule.ours] = tensor.clone()
    state_dict.update(_batch_statistics(kind))
    _restore_batch_norms(kind, state_dict, checkpoint.get(KEPT_NORMS))
    official = dict(kind=kind, config=CONFIGS[kind], background=background)
    if isinstance(checkpoint.get('step'), int):
        official['step'] = checkpoint['step']
    return dict(meta=dict(official=official, dataset_meta=dict(CocoDataset.METAINFO)), state_dict=state_dict)


def to_official(checkpoint: Dict) -> Dict:
    """Convert a checkpoint of one of the official configs back.

    The batch norms of the backbone are folded into a scale and a bias; those
    that :func:`from_official` wrote come back to the bit. Others are kept
    under ``mmdet_batch_norms``, which the official code does not read, for
    :func:`from_official`. Background rows that the checkpoint does not hold,
    because it was trained here, are zero: the official code never reads them
    at inference.

    Args:
        checkpoint (dict): A checkpoint with ``state_dict``.

    Returns:
        dict: ``model``, the official state dict, ``step`` if known, and
        ``mmdet_batch_norms`` if there are any.

    Raises:
        CheckpointError: If keys or shapes are not those of a known model.
    """
    ours = _tensors(checkpoint, 'state_dict')
    kind = detect_kind(ours, by='ours')
    official = checkpoint.get('meta', {}).get('official', {})
    background = official.get('background', {})
    norms = _folded_batch_norms(kind, ours)
    model = OrderedDict()
    for rule in rules(kind):
        tensor = norms.get(rule.ours, ours[rule.ours])
        rows = rule.rows_per_class
        expected = rule.shape
        if rule.classes == 'dropped':
            expected = (expected[0] - rows, *expected[1:])
        _check_shape(rule.ours, tensor, expected)
        if rule.classes == 'last':
            tensor = torch.cat([tensor[-rows:], tensor[:-rows]])
        elif rule.classes == 'dropped':
            first = background.get(rule.official)
            if first is None:
                first = tensor.new_zeros(rows, *tensor.shape[1:])
            _check_shape(f'meta.official.background.{rule.official}', first, (rows, *tensor.shape[1:]))
            tensor = torch.cat([first, tensor])
        model[rule.official] = tensor.clone()
    converted = dict(model=model)
    if 'step' in official:
        converted['step'] = official['step']
    if norms:
        converted[KEPT_NORMS] = OrderedDict(
            (f'{prefix}.{name}', ours[f'{prefix}.{name}'].clone())
            for prefix in OrderedDict.fromkeys(name.rpartition('.')[0] for name in norms)
            for name in ('weight', 'bias', *BN_STATISTICS)
        )
    return converted


def _norms(kind: str) -> Iterator[Tuple[str, Tuple[int, ...]]]:
    """Name and shape of every norm of the backbone."""
    for rule in rules(kind):
        name, _, last = rule.ours.rpartition('.')
        if name.startswith('backbone.') and last == 'bias':
            yield name, rule.shape


def _batch_statistics(kind: str) -> Dict[str, Tensor]:
    """Running statistics that make a BN of every frozen affine."""
    statistics = OrderedDict()
    for name, shape in _norms(kind):
        values = (torch.zeros(shape), torch.full(shape, 1 - BN_EPS), torch.tensor(0))
        for statistic, value in zip(BN_STATISTICS, values):
            statistics[f'{name}.{statistic}'] = value
    return statistics


def _folded_batch_norms(kind: str, state_dict: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Scale and bias, under the names of weight and bias, of every BN that is
    not just the affine of its weight and bias, as from_official writes it."""
    affine = _batch_statistics(kind)
    folded = OrderedDict()
    for name, shape in _norms(kind):
        statistics = {f'{name}.{key}': state_dict[f'{name}.{key}'] for key in BN_STATISTICS}
        for key, value in statistics.items():
            _check_shape(key, value, affine[key].shape)
        for key in (f'{name}.weight', f'{name}.bias'):
            _check_shape(key, state_dict[key], shape)
        if not all(
            value.dtype == affine[key].dtype and torch.equal(value, affine[key]) for key, value in statistics.items()
        ):
            folded.update(_fold_batch_norm(state_dict, name))
    return folded


def _fold_batch_norm(state_dict: Dict[str, Tensor], name: str) -> Dict[str, Tensor]:
    """Scale and bias of the affine that a BN computes in eval mode."""
    weight, bias, mean, variance = (
        state_dict[f'{name}.{key}'].double() for key in ('weight', 'bias', 'running_mean', 'running_var')
    )
    scale = weight / (variance + BN_EPS).sqrt()
    return {
        f'{name}.weight': scale.to(state_dict[f'{name}.weight'].dtype),
        f'{name}.bias': (bias - mean * scale).to(state_dict[f'{name}.bias'].dtype),
    }


def _restore_batch_norms(kind: str, state_dict: Dict[str, Tensor], kept: Optional[Dict[str, Tensor]]) -> None:
    """Put the batch norms that to_official kept into ``state_dict``.

    One is left alone if the official scale and bias have changed since.
    """
    if not isinstance(kept, dict):
        return
    for name, _ in _norms(kind):
        keys = [f'{name}.{key}' for key in ('weight', 'bias', *BN_STATISTICS)]
        if not all(isinstance(kept.get(key), Tensor) and kept[key].shape == state_dict[key].shape for key in keys):
            continue
        folded = _fold_batch_norm(kept, name)
        if all(
            value.dtype == state_dict[key].dtype and torch.equal(value, state_dict[key])
            for key, value in folded.items()
        ):
            state_dict.update((key, kept[key].clone()) for key in keys)


def _tensors(checkpoint: Dict, key: str) -> Dict[str, Tensor]:
    """The state dict under ``key``, without DataParallel's prefix."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
        held = _some(map(str, checkpoint)) if isinstance(checkpoint, dict) else type(checkpoint).__name__
        advice = ''
        if isinstance(checkpoint, dict):
            if key == 'model' and 'state_dict' in checkpoint:
                advice = ". It is one of mmdet's: convert it with --reverse"
            elif key == 'state_dict' and 'model' in checkpoint:
                advice = '. It is an official one: leave --reverse out'
        raise CheckpointError(
            f'a checkpoint with the state dict under {key!r} was expected, but this one holds {held}{advice}'
        )
    state_dict = checkpoint[key]
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f'{name!r} should be a tensor, but is {type(value).__name__}')
    prefix = 'module.'
    if state_dict and all(name.startswith(prefix) for name in state_dict):
        return {name[len(prefix) :]: value for name, value in state_dict.items()}
    return dict(state_dict)


def _check_shape(name: str, tensor: Tensor, shape: Tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise CheckpointError(f'{name!r} has shape {tuple(tensor.shape)}, but {tuple(shape)} was expected')


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    if not names:
        return 'nothing'
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(map(repr, names[:limit])) + more


def convert_file(source: Union[str, Path], target: Union[str, Path], reverse: bool = False) -> str:
    """Convert a file.

    Args:
        source (str | Path): The official checkpoint, or with ``reverse``
            one of ours.
        target (str | Path): Where to write the other. It is written whole or
            not at all.
        reverse (bool): Convert back. Defaults to False.

    Returns:
        str: The kind of model: 'mask', 'det' or 'det_2fc'.
    """
    source, target = Path(source), Path(target)
    check_paths(source, target)
    checkpoint = load_untrusted(source)
    try:
        converted = (to_official if reverse else from_official)(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}') from error
    save_whole(converted, target)
    if reverse:
        return detect_kind(converted['model'])
    return converted['meta']['official']['kind']
