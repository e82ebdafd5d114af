# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Whether a config says how to train or to test, and the changes that command lines make to it."""

import importlib.util
import inspect
import re
from copy import deepcopy
from typing import Any, Iterator, Tuple

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS as ROOT_MODELS

from mmdet.models import DetTTAModel
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmpanet.utils.configs import dicts_in, type_name
from mmpanet.utils.errors import ConfigError

NEEDED = dict(
    train=('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'),
    test=('model', 'test_dataloader', 'test_cfg', 'test_evaluator'),
)
# What mmengine's runner takes together or not at all.
TOGETHER = (
    ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    ('val_dataloader', 'val_cfg', 'val_evaluator'),
    ('test_dataloader', 'test_cfg', 'test_evaluator'),
)
# Keys of MMDetection 2.x, and what took their place.
OLD_KEYS = dict(
    data='train_dataloader, val_dataloader and test_dataloader',
    runner='train_cfg',
    optimizer='optim_wrapper',
    optimizer_config='optim_wrapper',
    lr_config='param_scheduler',
    total_epochs='train_cfg',
    evaluation='val_evaluator and val_cfg',
    checkpoint_config='default_hooks',
    resume_from='load_from and resume',
)
OLD_ARGUMENTS = dict(
    samples_per_gpu='batch_size',
    workers_per_gpu='num_workers',
    img_prefix='data_prefix=dict(img=...)',
    img_scale='scale',
    flip_ratio='prob',
)
OLD_TRANSFORMS = dict(
    Collect='PackDetInputs',
    DefaultFormatBundle='PackDetInputs',
    ImageToTensor='PackDetInputs',
    MultiScaleFlipAug='TestTimeAug in tta_pipeline',
)

DEFAULT_TTA_MODEL = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))


def check_run_config(cfg: Config, task: str) -> None:
    """Refuse a config that does not say how to train or to test.

    Args:
        cfg: The config.
        task: 'train' or 'test'.

    Raises:
        ConfigError: If a key is missing or None, of a wrong type, or one of MMDetection 2.x, or if nothing has the
            default scope.
    """
    scope = cfg.get('default_scope')
    if scope and not _is_scope(scope):
        raise ConfigError(
            f'config {cfg.filename}: default_scope={scope!r}, and no package or registry of this name is here; it '
            "takes the name of a package, such as 'mmdet'"
        )
    # test_cfg=dict() is mmengine's test loop.
    missing = [key for key in NEEDED[task] if cfg.get(key) is None or not cfg[key] and key != 'test_cfg']
    old = [key for key in OLD_KEYS if key in cfg]
    if missing and old:
        raise ConfigError(
            f'config {cfg.filename}: is one of MMDetection 2.x, which MMDetection 3.x does not read: '
            + '; '.join(f'{key} is {OLD_KEYS[key]} now' for key in old)
        )
    if missing:
        held = ', '.join(f'{key}={cfg.get(key)!r}' if key in cfg else f'no {key}' for key in missing)
        raise ConfigError(
            f'config {cfg.filename}: {held}; to {task}, a config must set all of {", ".join(NEEDED[task])}'
        )
    for key in NEEDED[task]:
        allowed = (dict, list) if key.endswith('evaluator') else dict
        if not isinstance(cfg[key], allowed):
            raise ConfigError(f'config {cfg.filename}: {key}={cfg[key]!r}, it takes a dict')
    for keys in TOGETHER:
        unset = [key for key in keys if cfg.get(key) is None]
        if 0 < len(unset) < len(keys):
            raise ConfigError(
                f'config {cfg.filename}: {unset[0]} is {"None" if unset[0] in cfg else "missing"}; set all of '
                f'{", ".join(keys)}, or none of them'
            )
    found = next(_old_arguments(cfg.get(f'{task}_dataloader'), f'{task}_dataloader'), None)
    if found:
        raise ConfigError(
            f'config {cfg.filename}: {found[0]} is of MMDetection 2.x; in MMDetection 3.x it is {found[1]}'
        )


def _is_scope(name: str) -> bool:
    """Whether mmengine finds types under this scope: it is a package, or a registry that is imported already."""
    return name in ROOT_MODELS.children or (name.isidentifier() and importlib.util.find_spec(name) is not None)


def _old_arguments(loader: Any, key: str) -> Iterator[Tuple[str, str]]:
    for place, node in dicts_in(loader, key):
        kind = node.get('type')
        if isinstance(kind, str) and kind in OLD_TRANSFORMS:
            yield f'{place}.type={kind!r}', OLD_TRANSFORMS[kind]
        for name in node:
            if name in OLD_ARGUMENTS and not _takes(kind, name):
                yield f'{place}.{name}', OLD_ARGUMENTS[name]


def _takes(kind: Any, argument: str) -> bool:
    """Whether a dataset or transform takes this argument in MMDetection 3.x too, as Mosaic takes ``img_scale``.

    Of a type that MMDetection does not know, which may be another package's, that is taken for granted.
    """
    for registry in (TRANSFORMS, DATASETS):
        cls = registry.get(kind) if isinstance(kind, str) else kind
        if isinstance(cls, type):
            inits = [vars(base)['__init__'] for base in cls.__mro__ if '__init__' in vars(base)]
            return any(argument in inspect.signature(init).parameters for init in inits)
    return kind is not None


def use_amp(cfg: Config) -> None:
    """Train with automatic mixed precision.

    Raises:
        ConfigError: If the config has another wrapper of the optimizer.
    """
    if not isinstance(cfg.get('optim_wrapper'), dict):
        return  # check_run_config says so
    wrapper = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ConfigError(f"--amp replaces optim_wrapper.type 'OptimWrapper', and the config has {wrapper!r}")
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def check_amp(cfg: Config) -> None:
    """Refuse automatic mixed precision where mmengine has none.

    Raises:
        ConfigError: If ``optim_wrapper`` asks for it, and there is no GPU.
    """
    wrapper = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if wrapper == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise ConfigError(f'optim_wrapper.type={wrapper!r} (--amp) needs a GPU, and there is none here')


def use_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate from the config's batch size to that of this run."""
    auto_scale_lr = cfg.get('auto_scale_lr')
    if not isinstance(auto_scale_lr, dict) or 'base_batch_size' not in auto_scale_lr:
        raise ConfigError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the config')
    cfg.auto_scale_lr.enable = True


def check_test_time_augmentation(cfg: Config) -> None:
    """Refuse test-time augmentation that would drop the masks of a model.

    Raises:
        ConfigError: If the model predicts masks and the TTA model merges only boxes, as mmdet's ``DetTTAModel`` does.
            Also if ``tta_model`` is no config of a model.
    """
    tta_model = cfg.get('tta_model') or DEFAULT_TTA_MODEL
    kind: Any = tta_model.get('type') if isinstance(tta_model, dict) else None
    if kind is None:
        raise ConfigError(f'tta_model={tta_model!r}, it takes a dict with type')
    if isinstance(kind, str):  # mmdet's registry does not know its own scope in a name
        kind = MODELS.get(re.sub(r'^mmdet\.(\w+)$', r'\1', kind))
    only_boxes = kind is not None and getattr(kind, 'merge_preds', None) is DetTTAModel.merge_preds
    heads = (f'{key}.mask_head' for key, node in dicts_in(cfg.get('model'), 'model') if node.get('mask_head'))
    head = next(heads, None)
    if only_boxes and head:
        raise ConfigError(
            f'--tta merges only boxes by {kind.__name__}, and this model predicts masks ({head}). Leave them out: '
            '--cfg-options model.roi_head.mask_head=None model.roi_head.mask_roi_extractor=None '
            'test_evaluator.metric=bbox'
        )


def use_test_time_augmentation(cfg: Config) -> None:
    """Wrap the model and the test pipeline for test-time augmentation.

    ``tta_model`` and ``tta_pipeline`` of the config are used, or else mmdet's ``DetTTAModel`` and a horizontal flip.
    """
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:  # a wrapper, such as RepeatDataset
        dataset = dataset.dataset
    if not dataset.get('pipeline'):
        raise ConfigError(
            f'--tta changes the pipeline of one dataset, and test_dataloader.dataset is a {type_name(dataset.type)} '
            'without one: test its datasets one by one'
        )
    if not cfg.get('tta_pipeline'):
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        pack = dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
        )
        cfg.tta_pipeline = [*deepcopy(dataset.pipeline[:-1]), dict(type='TestTimeAug', transforms=[flips, [pack]])]
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**(cfg.get('tta_model') or DEFAULT_TTA_MODEL), module=cfg.model)
