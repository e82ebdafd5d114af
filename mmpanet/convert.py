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

import os
import pickle
import re
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, Union

import torch
from torch import Tensor

from mmdet.datasets import CocoDataset

BN_EPS = 1e-5
BN_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
# Where an official checkpoint of ours keeps what no official one has.
KEPT_NORMS = 'mmdet_batch_norms'

# Config of each official model, by what it is called here.
CONFIGS = {
    'mask': 'mask-rcnn_r50-caffe_panet-gn_ms-2x_coco.py',
    'det': 'faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco.py',
    'det_2fc': 'faster-rcnn_r50-caffe_panet-gn-2fc_ms-1x_coco.py',
}


class ConversionError(ValueError):
    """A checkpoint that is not what it should be; says which keys."""


class Rule(NamedTuple):
    """How one official tensor is called and laid out in mmdet.

    ``classes`` says what its first dimension is: '' no classes, 'last' one
    row a class and the background moves to the end, or 'dropped' the
    background's rows (of ``rows_per_class``) are left out.
    """

    official: str
    ours: str
    shape: Tuple[int, ...]
    classes: str = ''
    rows_per_class: int = 1


def rules(kind: str) -> List[Rule]:
    """Every tensor of one official model.

    Args:
        kind (str): 'mask', 'det' or 'det_2fc'.

    Returns:
        list[Rule]: One rule a tensor, with the official shape.
    """
    found = [*_backbone_rules(), *_neck_rules(), *_rpn_rules()]
    found += _2fc_head_rules() if kind == 'det_2fc' else _4conv1fc_head_rules()
    found += _box_output_rules()
    if kind == 'mask':
        found += _mask_head_rules()
    return found


def _weight_and_bias(official: str, ours: str, shape: Tuple[int, ...]) -> Iterator[Rule]:
    yield Rule(f'{official}.weight', f'{ours}.weight', shape)
    yield Rule(f'{official}.bias', f'{ours}.bias', shape[:1])


def _conv_gn(official: str, index: int, ours: str, shape: Tuple[int, ...], bias: bool = False) -> Iterator[Rule]:
    """A conv at ``index`` of a Sequential, and the GN behind it."""
    yield Rule(f'{official}.{index}.weight', f'{ours}.conv.weight', shape)
    if bias:
        yield Rule(f'{official}.{index}.bias', f'{ours}.conv.bias', shape[:1])
    yield from _weight_and_bias(f'{official}.{index + 1}', f'{ours}.gn', shape[:1])


def _backbone_rules() -> Iterator[Rule]:
    """``lib/modeling/ResNet.py``: res1 is the stem, res2..5 are layer1..4."""
    source = 'Conv_Body.conv_body'
    yield Rule(f'{source}.res1.conv1.weight', 'backbone.conv1.weight', (64, 3, 7, 7))
    yield from _weight_and_bias(f'{source}.res1.bn1', 'backbone.bn1', (64,))
    in_channels = 64
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**stage
        for block in range(depth):
            theirs = f'{source}.res{stage + 1}.{block}'
            ours = f'backbone.layer{stage}.{block}'
            shapes = ((width, in_channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, shape in enumerate(shapes, start=1):
                yield Rule(f'{theirs}.conv{i}.weight', f'{ours}.conv{i}.weight', shape)
                yield from _weight_and_bias(f'{theirs}.bn{i}', f'{ours}.bn{i}', shape[:1])
            if block == 0:
                yield Rule(
                    f'{theirs}.downsample.0.weight', f'{ours}.downsample.0.weight', (4 * width, in_channels, 1, 1)
                )
                yield from _weight_and_bias(f'{theirs}.downsample.1', f'{ours}.downsample.1', (4 * width,))
            in_channels = 4 * width


def _neck_rules() -> Iterator[Rule]:
    """``lib/modeling/FPN.py``: top-down coarse to fine, new path fine first."""
    yield from _conv_gn('Conv_Body.conv_top', 0, 'neck.lateral_convs.3', (256, 2048, 1, 1))
    for i, channels in enumerate((1024, 512, 256)):
        yield from _conv_gn(
            f'Conv_Body.topdown_lateral_modules.{i}.conv_lateral',
            0,
            f'neck.lateral_convs.{2 - i}',
            (256, channels, 1, 1),
        )
    for i in range(4):
        yield from _conv_gn(f'Conv_Body.posthoc_modules.{i}', 0, f'neck.fpn_convs.{3 - i}', (256, 256, 3, 3))
    for i in range(3):
        # "buttomup" is their spelling.
        for number, ours in ((1, 'downsample_convs'), (2, 'bottom_up_convs')):
            yield from _conv_gn(
                f'Conv_Body.panet_buttomup_conv{number}_modules.{i}', 0, f'neck.{ours}.{i}', (256, 256, 3, 3), bias=True
            )


def _rpn_rules() -> Iterator[Rule]:
    for theirs, ours, shape in (
        ('conv', 'rpn_conv', (256, 256, 3, 3)),
        ('cls_score', 'rpn_cls', (3, 256, 1, 1)),
        ('bbox_pred', 'rpn_reg', (12, 256, 1, 1)),
    ):
        yield from _weight_and_bias(f'RPN.FPN_RPN_{theirs}', f'rpn_head.{ours}', shape)


def _4conv1fc_head_rules() -> Iterator[Rule]:
    """``roi_Xconv1fc_gn_head_panet`` of ``lib/modeling/fast_rcnn_heads.py``."""
    ours = 'roi_head.bbox_head.shared_convs'
    for level in range(4):
        yield from _conv_gn(f'Box_Head.conv1_head.{level}', 0, f'{ours}.0.levels.{level}', (256, 256, 3, 3))
    for i in range(3):
        yield from _conv_gn('Box_Head.convs', 3 * i, f'{ours}.{i + 1}', (256, 256, 3, 3))
    yield from _weight_and_bias('Box_Head.fc', 'roi_head.bbox_head.shared_fcs.0', (1024, 256 * 7 * 7))


def _2fc_head_rules() -> Iterator[Rule]:
    """``roi_2mlp_head_gn_panet`` of ``lib/modeling/fast_rcnn_heads.py``."""
    ours = 'roi_head.bbox_head.shared_fcs'
    fcs = [(f'Box_Head.fc1.{level}', f'{ours}.0.levels.{level}', 256 * 7 * 7) for level in range(4)]
    for theirs, name, features in [*fcs, ('Box_Head.fc2', f'{ours}.1', 1024)]:
        yield from _weight_and_bias(f'{theirs}.0', name, (1024, features))
        yield from _weight_and_bias(f'{theirs}.1', f'{name}.norm', (1024,))


def _box_output_rules() -> Iterator[Rule]:
    """Scores of 81 classes and 4 deltas for each of them."""
    for name, shape in (('weight', (1024,)), ('bias', ())):
        yield Rule(f'Box_Outs.cls_score.{name}', f'roi_head.bbox_head.fc_cls.{name}', (81, *shape), 'last')
        yield Rule(f'Box_Outs.bbox_pred.{name}', f'roi_head.bbox_head.fc_reg.{name}', (324, *shape), 'dropped', 4)


def _mask_head_rules() -> Iterator[Rule]:
    """``mask_rcnn_fcn_head_v1up4convs_gn_adp_ff`` of ``mask_rcnn_heads.py``."""
    ours, conv = 'roi_head.mask_head', (256, 256, 3, 3)
    for level in range(4):
        yield from _conv_gn(f'Mask_Head.mask_conv1.{level}', 0, f'{ours}.convs.0.levels.{level}', conv)
    yield from _conv_gn('Mask_Head.conv_fcn', 0, f'{ours}.convs.1', conv)
    yield from _conv_gn('Mask_Head.conv_fcn', 3, f'{ours}.convs.2', conv)
    yield from _conv_gn('Mask_Head.mask_conv4', 0, f'{ours}.convs.3', conv)
    yield from _conv_gn('Mask_Head.mask_conv4_fc', 0, f'{ours}.conv4_fc', conv)
    yield from _conv_gn('Mask_Head.mask_conv5_fc', 0, f'{ours}.conv5_fc', (128, 256, 3, 3))
    yield from _weight_and_bias('Mask_Head.mask_fc.0', f'{ours}.mask_fc', (784, 128 * 14 * 14))
    yield from _weight_and_bias('Mask_Head.upconv', f'{ours}.upsample', (256, 256, 2, 2))
    yield Rule('Mask_Outs.classify.weight', f'{ours}.conv_logits.weight', (81, 256, 1, 1), 'dropped')
    yield Rule('Mask_Outs.classify.bias', f'{ours}.conv_logits.bias', (81,), 'dropped')


def detect_kind(names: Iterable[str], by: str = 'official') -> str:
    """Which of the three models a state dict belongs to.

    Args:
        names (Iterable[str]): Keys of the state dict.
        by (str): Whose names they are, 'official' or 'ours'.

    Returns:
        str: 'mask', 'det' or 'det_2fc'.

    Raises:
        ConversionError: If the keys are those of none of them. It names what
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
    raise ConversionError(
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
        ConversionError: If keys or shapes are not those of a known model.
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
        ConversionError: If keys or shapes are not those of a known model.
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
        raise ConversionError(
            f'a checkpoint with the state dict under {key!r} was expected, but this one holds {held}{advice}'
        )
    state_dict = checkpoint[key]
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ConversionError(f'{name!r} should be a tensor, but is {type(value).__name__}')
    prefix = 'module.'
    if state_dict and all(name.startswith(prefix) for name in state_dict):
        return {name[len(prefix) :]: value for name, value in state_dict.items()}
    return dict(state_dict)


def _check_shape(name: str, tensor: Tensor, shape: Tuple[int, ...]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise ConversionError(f'{name!r} has shape {tuple(tensor.shape)}, but {tuple(shape)} was expected')


def _some(names: Iterable[str], limit: int = 5) -> str:
    names = sorted(names)
    if not names:
        return 'nothing'
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(map(repr, names[:limit])) + more


def load_untrusted(path: Union[str, Path]) -> Dict:
    """Read a checkpoint from elsewhere, as data only.

    Args:
        path (str | Path): A file that ``torch.save`` wrote.

    Raises:
        ConversionError: If it is no such file, is cut off, or holds anything
            that would have to be executed to be read.
    """
    try:
        with open(path, 'rb') as file:
            file.read(1)
    except OSError as error:
        raise ConversionError(f'{path}: cannot be read: {error.strerror}') from error
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # a damaged file raises errors of every kind, OSError too
        refused = re.search(r'GLOBAL ([A-Za-z_][\w.]*) (was not|whose)', str(error))
        if refused:
            raise ConversionError(
                f'{path}: is not read, because it holds {refused[1]}, and '
                'only tensors and plain data can be read without running code '
                'of the file. If you trust it, save just its state dict where '
                'it was made'
            ) from error
        # torch's own words on this one advise to switch the check off
        reason = (
            ''
            if isinstance(error, pickle.UnpicklingError)
            else f' ({str(error).splitlines()[0]})'
            if str(error)
            else ''
        )
        raise ConversionError(
            f'{path}: is damaged or no file of torch.save{reason}; if it was downloaded, do it again'
        ) from error


def save_whole(checkpoint: Dict, path: Union[str, Path]) -> None:
    """Write a checkpoint completely, or leave what was there."""
    path = Path(path)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    try:
        with os.fdopen(handle, 'wb') as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def check_paths(source: Path, target: Path) -> None:
    """Refuse a target that is the source, or in a folder that is not there."""
    if target.exists() and source.exists() and target.samefile(source):
        raise ConversionError(f'{source}: would be overwritten by its own conversion; name another target')
    if not target.parent.is_dir():
        raise ConversionError(f'{target.parent}: no such folder to write to')


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
    except ConversionError as error:
        raise ConversionError(f'{source}: {error}') from error
    save_whole(converted, target)
    if reverse:
        return detect_kind(converted['model'])
    return converted['meta']['official']['kind']
