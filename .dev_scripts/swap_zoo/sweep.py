# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The swap over a whole zoo of configs: what is swapped, what is refused and why, and whether the result works.

Each config is loaded, swapped and built, and its neck runs before and after the swap. Configs that differ only in
backbone, losses, data or schedule form a group. The smallest config of each group trains one step and predicts.
"""

import gc
import json
import os
import re
import traceback
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mmdet.models.necks import FPN, PAFPN
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmpanet.swap.config import plan_swap
from mmpanet.swap.model_search import find_models, necks_of
from mmpanet.swap.options import SwapOptions
from mmpanet.swap.types import SwapError, class_of
from mmpanet.swap.verification import generated_image, preprocessor_of
from mmpanet.swap.weights import carry_weights
from mmpanet.swap.written_config import write_config
from mmpanet.utils.configs import load_config, type_name
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model, without_downloads

IMAGE_SIZE = 128
# The deformable convolutions of these models need at least 3 x 3 pixels on the coarsest level.
LARGE_IMAGE_SIZE, NEED_LARGE_IMAGES = 384, ('DDOD',)
FINEST_SIZE = 16  # height and width of the finest random map that a neck runs on
# Keys of a config's RoI heads and necks that do not decide which group it belongs to.
IGNORED_KEYS = {'in_channels', 'num_classes', 'init_cfg', 'bbox_coder', 'custom_cls_channels'}


class Zoo:
    """The configs of a folder and their results, which are kept in a file, so a sweep that was stopped can go on."""

    def __init__(self, root: Union[str, os.PathLike], results: Union[str, os.PathLike]) -> None:
        self.root = Path(root).resolve()
        self.file = Path(results)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.builds: Dict[str, dict] = {}
        self.trainings: Dict[str, dict] = {}
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            result = json.loads(line)
            self._results(result['kind'])[result['config']] = result

    def _results(self, kind: str) -> Dict[str, dict]:
        return self.builds if kind == 'build' else self.trainings

    def configs(self) -> List[str]:
        """The names of all configs, without the files of ``_base_`` folders."""
        paths = (path.relative_to(self.root) for path in self.root.rglob('*.py'))
        return sorted(path.as_posix() for path in paths if '_base_' not in path.parts)

    def to_build(self) -> List[str]:
        return [name for name in self.configs() if name not in self.builds]

    def to_train(self) -> List[str]:
        """The smallest config of each group that has not been trained."""
        return [name for name in self.groups() if name not in self.trainings]

    def groups(self) -> Dict[str, List[str]]:
        """All configs of each group, by the name of its smallest config."""
        groups = defaultdict(list)
        for name in sorted(self.builds):
            if self.builds[name].get('built'):
                groups[self.builds[name]['group']].append(name)
        smallest = {
            min(names, key=lambda name: (self.builds[name]['parameters'][0], name)): names for names in groups.values()
        }
        return dict(sorted(smallest.items()))

    def build(self, name: str) -> dict:
        return self._run('build', name, lambda: build_swapped(self.root / name))

    def train(self, name: str) -> dict:
        return self._run('train', name, lambda: train_swapped(self.root / name))

    def _run(self, kind: str, name: str, function: Callable[[], dict]) -> dict:
        result = {'kind': kind, 'config': name, **function()}
        with self.file.open('a') as file:
            file.write(json.dumps(result) + '\n')
        self._results(kind)[name] = result
        gc.collect()
        return result


def build_swapped(path: Path) -> dict:
    """Swap a config and build its model; run its neck before and after the swap."""
    try:
        cfg = load_config(path)
    except Exception as error:  # a broken config may raise anything
        return dict(failed='load', why=_short(error))
    if not isinstance(cfg.get('model'), dict):
        return dict(failed='no model', why='a part of other configs')
    place = _place_of_fpn(cfg)
    if place is None:
        necks = [type_name(neck['type']) for _, model in find_models(cfg.model) for neck in necks_of(model)]
        why = 'no neck'
        if necks:
            why = _why_refused(lambda: plan_swap(cfg))
        return dict(failed='no FPN', why=why, model=type_name(cfg.model.type), neck=' + '.join(necks) or '-')
    where, model, neck = place
    result: dict = dict(
        model=' > '.join(type_name(node['type']) for node in _nodes(cfg, where)),
        neck=' + '.join(type_name(one['type']) for one in necks_of(model)),
        arguments=_arguments(neck),
        roi_head=type_name(model['roi_head']['type']) if model.get('roi_head') else '-',
    )
    try:
        cold, warm = (plan_swap(cfg, SwapOptions(warm_start=warm_start)).config for warm_start in (False, True))
    except SwapError as error:
        return {**result, 'failed': 'swap', 'why': _short(error)}
    whole, result['roi_head_swap'] = None, '-'
    if model.get('roi_head'):
        try:
            whole, result['roi_head_swap'] = plan_swap(cfg, SwapOptions(roi_head=True)).config, 'swapped'
        except SwapError as error:
            result['roi_head_swap'] = _short(error)
    result['group'] = _group(cfg, where, model, result)
    try:
        with without_initialization():
            result['parameters'] = [_count(cfg)]
    except Exception as error:  # MMDetection itself cannot build it, for any reason
        return {**result, 'failed': 'build before', 'why': _short(error)}
    try:
        with without_initialization():
            result['parameters'].append(_count(cold))
            result['parameters'].append(_count(whole) if whole else None)
        result['difference'] = _neck_difference(cfg, where, cold, warm)
    except Exception as error:
        return {**result, 'failed': 'build after', 'why': _short(error)}
    result['built'] = True
    return result


def train_swapped(path: Path) -> dict:
    """Swap a config, write it, train one step with the written config, and predict.

    The RoI head is swapped too if the swap does not refuse it. If the result does not work, the same is tried without
    the swap.
    """
    cfg = load_config(path)
    place = _place_of_fpn(cfg)
    assert place is not None, path  # only configs with an FPN come here
    where, model, _ = place
    roi_head = bool(model.get('roi_head')) and not _why_refused(lambda: plan_swap(cfg, SwapOptions(roi_head=True)))
    swap = plan_swap(cfg, SwapOptions(roi_head=roi_head))
    written = Path('swapped.py')
    source = write_config(swap.config, path, written)
    result = dict(with_roi_head=roi_head, part='.'.join(where), inherits=source.startswith('_base_'))
    error = _train_and_predict(Config.fromfile(written), where)
    result['works'] = error is None
    if error is not None:
        result.update(why=error, before=_train_and_predict(cfg, where))
    return result


def _why_refused(swap: Callable[[], object]) -> str:
    try:
        swap()
    except SwapError as error:
        return _short(error)
    return ''


def _place_of_fpn(cfg: Config) -> Optional[Tuple[Tuple[str, ...], dict, dict]]:
    for where, model in find_models(cfg.model):
        for neck in necks_of(model):
            if class_of(neck['type'], cfg.get('default_scope')) in (FPN, PAFPN):
                return where, model, neck
    return None


def _nodes(cfg: Config, where: Tuple[str, ...]) -> Iterator[dict]:
    node = cfg
    for key in where:
        node = node[key]
        yield node


def _arguments(neck: dict) -> str:
    """The arguments of the FPN, without those of its channels."""
    shown = {key: neck[key] for key in sorted(neck) if key not in ('type', 'in_channels', 'out_channels', 'init_cfg')}
    return ', '.join(f'{key}={_value(value)}' for key, value in shown.items())


def _value(value: Any) -> str:
    if isinstance(value, dict) and 'type' in value:
        return type_name(value['type'])
    if isinstance(value, dict):
        return ' '.join(str(item) for item in value.values())
    return str(value)


def _group(cfg: Config, where: Tuple[str, ...], model: dict, result: dict) -> str:
    """A text that is equal for all configs of a group: those that differ only in backbone, losses, data or schedule."""

    def essence(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: type_name(node[key]) if key == 'type' else essence(node[key])
                for key in sorted(node, key=str)
                if key not in IGNORED_KEYS and not key.startswith('loss')
            }
        if isinstance(node, (list, tuple)):
            return [essence(item) for item in node]
        return node

    roi_head = model.get('roi_head') or {}
    parts = [result['model'], essence(necks_of(model)), type_name(roi_head.get('type', '-')), essence(roi_head)]
    for head in ('bbox_head', 'mask_head', 'rpn_head', 'panoptic_head', 'semantic_head'):
        parts.append(type_name(model[head]['type']) if isinstance(model.get(head), dict) else '-')
    return json.dumps(parts, sort_keys=True, default=str)


def _count(cfg: Config) -> int:
    return sum(parameter.numel() for parameter in build_model(_in_one_process(cfg)).parameters())


@torch.no_grad()
def _neck_difference(cfg: Config, where: Tuple[str, ...], cold: Config, warm: Config) -> float:
    """Run the neck on random maps: before the swap, after it, and after a swap with a warm start.

    Returns:
        The largest difference between the levels of the first and the last.

    Raises:
        NotWorkingError: If the levels have other shapes after a swap.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    old, *swapped = (_build_neck(one, where) for one in (cfg, cold, warm))
    maps = tuple(
        torch.randn(1, channels, *[max(1, FINEST_SIZE >> i)] * 2) for i, channels in enumerate(old[0].in_channels)
    )
    expected = old(maps)
    for neck in swapped:
        if neck is swapped[-1]:
            carry_weights(old.state_dict(), old, neck, warm_start=False)
        levels = neck(maps)
        if [level.shape for level in levels] != [level.shape for level in expected]:
            raise NotWorkingError('the levels have other shapes after the swap')
    return max((a - b).abs().max().item() for a, b in zip(expected, levels))


def _build_neck(cfg: Config, where: Tuple[str, ...]) -> nn.Sequential:
    *_, model = _nodes(cfg, where)
    return nn.Sequential(*[MODELS.build(without_downloads(_with_batch_norm(neck))) for neck in necks_of(model)]).eval()


def _in_one_process(cfg: Config) -> Config:
    return Config(_with_batch_norm(cfg._cfg_dict.to_dict()))


def _with_batch_norm(node: Any) -> Any:
    """The config with BN in place of SyncBN, which needs several processes."""
    if isinstance(node, dict):
        copy = type(node)({key: _with_batch_norm(node[key]) for key in node})
        if isinstance(copy.get('type'), str) and copy['type'] in ('SyncBN', 'MMSyncBN', 'NaiveSyncBN'):
            copy['type'] = 'BN'
        return copy
    if isinstance(node, (list, tuple)):
        return type(node)(_with_batch_norm(item) for item in node)
    return node


def _smaller(node: Any) -> Any:
    """The config with fewer proposals, samples and detections, and without score thresholds, so all heads have work."""
    if isinstance(node, dict):
        limits = {'max_per_img': 100, 'nms_post': 50, 'num': 64}
        return type(node)(
            {
                key: min(node[key], limits[key])
                if isinstance(node[key], int) and key in limits
                else 0.0
                if key == 'score_thr' and isinstance(node[key], (int, float))
                else _smaller(node[key])
                for key in node
            }
        )
    if isinstance(node, (list, tuple)):
        return type(node)(_smaller(item) for item in node)
    return node


def _train_and_predict(cfg: Config, where: Tuple[str, ...]) -> Optional[str]:
    """Train one step and predict. Returns None if both work, and what is wrong otherwise."""
    torch.manual_seed(0)
    cfg = _in_one_process(cfg)
    for counter in ('iter', 'epoch'):  # some heads read them, and there is no runner that counts
        MessageHub.get_current_instance().update_info(counter, 0)
    *_, node = _nodes(cfg, where)
    for key in ('train_cfg', 'test_cfg'):
        if node.get(key):
            node[key] = _smaller(node[key])
    heads = (node.get('roi_head') or {}).get('bbox_head') or []
    for head in [heads] if isinstance(heads, dict) else heads:
        if head['type'].startswith('PANet'):
            head['fc_out_channels'] = 64  # instead of 1024, because most of the time is spent to initialize them
    preprocessor = node.get('data_preprocessor')
    if isinstance(preprocessor, dict) and preprocessor.get('batch_augments'):
        preprocessor['batch_augments'] = None  # padding to a large size
    try:
        model = build_model(cfg, where)
        with quiet_logger():
            model.init_weights()
        # The detector of a tracker has no preprocessor of its own.
        preprocess = model.data_preprocessor if preprocessor else preprocessor_of(cfg, where)
        _train(model, preprocess)
        _predict(model, preprocess)
    except NotWorkingError as error:
        return str(error)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f'{_short(error)} ({Path(last.filename).name}, {last.name})'
    return None


class NotWorkingError(Exception):
    """A step runs, and its result is wrong."""


def _train(model: nn.Module, preprocess: nn.Module) -> None:
    model.train()
    data = preprocess(_batch(model, 2), training=True)
    losses = model(data['inputs'], data['data_samples'], mode='loss')
    loss, _ = model.parse_losses(losses)
    if not torch.isfinite(loss):
        raise NotWorkingError(f'the loss is {loss.item()}')
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    loss.backward()
    idle = [name for name, parameter in trained if parameter.grad is None and name.startswith(('neck.', 'roi_head.'))]
    if idle:
        raise NotWorkingError(f'no gradient for {", ".join(idle[:3])}')
    bad = [name for name, parameter in trained if parameter.grad is not None and not parameter.grad.isfinite().all()]
    if bad:
        raise NotWorkingError(f'the gradient of {bad[0]} is not finite')
    torch.optim.SGD([parameter for _, parameter in trained], lr=1e-9).step()  # random weights have large gradients


@torch.no_grad()
def _predict(model: nn.Module, preprocess: nn.Module) -> None:
    model.eval()
    data = preprocess(_batch(model, 1), training=False)
    for sample in model(data['inputs'], data['data_samples'], mode='predict'):
        found = sample.pred_instances if 'pred_instances' in sample else sample
        scores = found.get('scores') if isinstance(found, InstanceData) else None
        if scores is not None and not scores.isfinite().all():
            raise NotWorkingError('a predicted score is not finite')


def _batch(model: nn.Module, batch_size: int) -> dict:
    """Images with two objects each: boxes, masks and a semantic map, and proposals if the model has no RPN."""
    edge = LARGE_IMAGE_SIZE if type(model).__name__ in NEED_LARGE_IMAGES else IMAGE_SIZE
    size = (edge, edge)
    boxes = torch.tensor([[8.0, 16.0, 72.0, 80.0], [40.0, 40.0, 120.0, 104.0]])
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    semantic = getattr(model, 'semantic_head', None) or getattr(getattr(model, 'roi_head', None), 'semantic_head', None)
    # Panoptic FPN takes the semantic map in full size, HTC and SCNet at an eighth of it.
    stride = 8 if semantic is not None and hasattr(semantic, 'fusion_level') else 1
    samples = []
    for i in range(batch_size):
        sample = DetDataSample(
            metainfo=dict(
                img_id=i,
                img_shape=size,
                ori_shape=size,
                scale_factor=(1.0, 1.0),
                flip=False,
                border=[0, 0, 0, 0],
                text='object',
                custom_entities=True,
                tokens_positive=-1,
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=boxes.clone(),
            labels=torch.zeros(len(boxes), dtype=torch.long),
            masks=BitmapMasks(masks.numpy().copy(), *size),
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        sample.gt_sem_seg = PixelData(sem_seg=torch.zeros(1, *(length // stride for length in size), dtype=torch.long))
        if hasattr(model, 'roi_head') and not getattr(model, 'with_rpn', True):
            corners = torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(i)).sort(dim=1)[0]
            sample.proposals = InstanceData(
                bboxes=torch.cat([boxes + 2, corners.flatten(1) * edge]), scores=torch.ones(52)
            )
        samples.append(sample)
    return dict(inputs=[generated_image(*size) for _ in range(batch_size)], data_samples=samples)


def _short(error: BaseException) -> str:
    text = re.sub(r'\s+', ' ', str(error)).partition(', the current sys.path')[0]
    text = re.sub(r'(/[\w.+-]+){2,}/', '', text)  # paths without their folders
    name = '' if isinstance(error, MMPanetError) else f'{type(error).__name__}: '
    return (name + text)[:300]


@contextmanager
def without_initialization() -> Iterator[None]:
    """Build modules without initializing their parameters, which is enough to count them."""
    names = [name for name in dir(nn.init) if name.endswith('_') and not name.startswith('_')]
    originals = {name: getattr(nn.init, name) for name in names}
    try:
        for name in names:
            setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)
        yield
    finally:
        for name, function in originals.items():
            setattr(nn.init, name, function)
