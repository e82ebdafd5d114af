# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The models that are compared, and how each of them is made ready to run."""

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Callable, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import load_checkpoint
from torch import Tensor

from mmdet.registry import OPTIMIZERS
from mmdet.structures import DetDataSample
from mmpanet.apis.image_loader import ImageLoader
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.engine.fused_step import with_fused_step
from mmpanet.swap import swap_config
from mmpanet.utils.configs import load_config, type_name
from mmpanet.utils.errors import BenchmarkError
from mmpanet.utils.limits_of_mmcv import use_mmcv_in_float32, use_mmcv_with_contiguous_maps
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model
from .workload import Workload, fix_proposals_and_detections

DEFAULT_BASE = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
MODEL_OPTIONS = ('channels_last', 'compile')
INFERENCE, TRAINING = MODES = ('inference', 'training')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
COMPILED_PARTS = ('backbone', 'neck', 'bbox_head', 'mask_head')
Batch = Tuple[Tensor, List[DetDataSample]]


class BenchmarkModel(NamedTuple):
    """One of the models that are compared."""

    name: str
    cfg: Config
    checkpoint: Optional[str] = None  # without one the weights are random
    options: Tuple[str, ...] = ()  # some of MODEL_OPTIONS


class RunSettings(NamedTuple):
    """How the models run, the same for all of them."""

    device: str = 'cpu'
    dtype: str = 'float32'  # any other one runs with torch.autocast
    rois_per_chunk: Optional[int] = None  # of PANetRoIHead
    images: Tuple[str, ...] = ()  # image files to read; then only the batch size of the workload counts


class Variant(NamedTuple):
    """A model that is made from a base config whose neck is mmdet's FPN."""

    description: str
    change: Callable[[Config], Config]


def check_names(names: Sequence[str]) -> None:
    """Refuse models that could not be told apart in a table.

    Raises:
        BenchmarkError: If two names are equal.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BenchmarkError(f'two models are named {twice[0]!r}, and results are kept by that name')


def find_model(
    name: str, checkpoint: Optional[str] = None, base: Union[str, 'os.PathLike[str]'] = DEFAULT_BASE
) -> BenchmarkModel:
    """The model that a name means.

    Args:
        name: A variant of the base config (a key of :data:`VARIANTS`), or a config by its path or ``mmdet::`` name.
            Either one may be followed by :data:`MODEL_OPTIONS`, as in ``panet+compile``.
        checkpoint: File with trained weights, or ``trained`` for those that come with the config.
        base: Config that the variants change.

    Raises:
        BenchmarkError: If there is no such variant or option, or if the base has no part that the variant changes.
        ConfigError: If a config cannot be loaded, or its neck cannot be swapped.
        CheckpointError: If no weights come with the config, or if they are not there.
    """
    model, *options = name.split('+')
    unknown = [option for option in options if option not in MODEL_OPTIONS]
    if unknown:
        raise BenchmarkError(f'{name}: {unknown[0]!r} must be one of {", ".join(MODEL_OPTIONS)}')
    if checkpoint:
        checkpoint = resolve_checkpoint(checkpoint, model)
    if model in VARIANTS:
        return BenchmarkModel(name, VARIANTS[model].change(load_config(base)), checkpoint, tuple(options))
    if not (model.endswith('.py') or '::' in model):
        raise BenchmarkError(f'{model!r} must be a config (*.py) or one of {", ".join(VARIANTS)}')
    return BenchmarkModel('+'.join([Path(model).stem, *options]), load_config(model), checkpoint, tuple(options))


def _two_samples(cfg: Config) -> Config:
    for extractor in _roi_extractors(cfg):
        extractor.roi_layer.sampling_ratio = 2
    return cfg


def _fast_pooling(cfg: Config) -> Config:
    for extractor in _roi_extractors(cfg):
        extractor.type = 'FastSingleRoIExtractor'
    return cfg


def _pafpn(cfg: Config) -> Config:
    neck = cfg.model.get('neck')
    if not isinstance(neck, dict) or type_name(neck['type']) != 'FPN':
        raise BenchmarkError('pafpn: the model of the base has no neck that is an FPN')
    neck['type'] = 'PAFPN'
    return cfg


def _panet_without_fc_fusion(cfg: Config) -> Config:
    cfg = swap_config(cfg, roi_head=True)
    if cfg.model.roi_head.get('mask_head'):
        cfg.model.roi_head.mask_head.fc_fusion = None
    return cfg


def _panet_with_mmcv_pooling(cfg: Config) -> Config:
    cfg = swap_config(cfg, roi_head=True)
    for extractor in _roi_extractors(cfg):
        extractor.backend = 'roi_align'
    return cfg


def _roi_extractors(cfg: Config) -> List[Any]:
    roi_head = cfg.model.get('roi_head')
    if not roi_head:
        raise BenchmarkError(f'model.type={cfg.model.type!r} has no roi_head, which this variant changes')
    keys = ('bbox_roi_extractor', 'mask_roi_extractor')
    return [roi_head[key] for key in keys if roi_head.get(key)]


VARIANTS: Dict[str, Variant] = {
    'fpn': Variant('the base as it is', lambda cfg: cfg),
    'fpn-s2': Variant('RoIAlign takes two samples per bin and axis, as in PANet', _two_samples),
    'fpn-fast': Variant('fpn with the pooling op of mmpanet, each RoI from one level', _fast_pooling),
    'fpn-s2-fast': Variant('fpn-s2 with the pooling op of mmpanet', lambda cfg: _fast_pooling(_two_samples(cfg))),
    'pafpn': Variant("mmdet's PAFPN in place of the FPN", _pafpn),
    'bpa': Variant('bottom-up path augmentation, the neck alone', swap_config),
    'bpa-afp': Variant('bpa with adaptive feature pooling', _panet_without_fc_fusion),
    'panet': Variant('bpa-afp with fully-connected fusion: all of PANet', partial(swap_config, roi_head=True)),
    'panet-plain': Variant("panet with mmcv's RoIAlign, called once per level", _panet_with_mmcv_pooling),
}


def build(model: BenchmarkModel) -> nn.Module:
    """The model with random weights, or with those of its checkpoint.

    Raises:
        BenchmarkError: If the checkpoint is of another model.
    """
    module = build_model(model.cfg)
    with quiet_logger():
        module.init_weights()
        if model.checkpoint:
            try:
                load_checkpoint(module, model.checkpoint, map_location='cpu', strict=True)
            except RuntimeError as error:
                raise BenchmarkError(f'{model.checkpoint} is no checkpoint of {model.name}: {error}') from error
    return module


class PreparedModel:
    """A model on its device, with the batches that it runs on.

    Args:
        model: What to build.
        workload: Images, proposals and detections.
        settings: How it runs.
    """

    def __init__(self, model: BenchmarkModel, workload: Workload, settings: RunSettings) -> None:
        self.device = torch.device(settings.device)
        self.dtype = DTYPES[settings.dtype]
        self.seed = workload.seed
        torch.manual_seed(self.seed)
        self.module = build(model).to(self.device)
        if settings.images:
            self.batches = list(self._read_batches(model.cfg, settings.images, workload.batch))
        else:
            samples = [sample.to(self.device) for sample in workload.make_samples()]
            self.batches = [(workload.make_images().to(self.device), samples)]
            fix_proposals_and_detections(self.module, workload, self.device)
        if self.dtype != torch.float32 and self.device.type == 'cpu':
            use_mmcv_in_float32(self.module)
        roi_head: Any = getattr(self.module, 'roi_head', None)
        if settings.rois_per_chunk and hasattr(roi_head, 'rois_per_chunk'):
            roi_head.rois_per_chunk = settings.rois_per_chunk
        if 'channels_last' in model.options:
            self._use_channels_last()
        # Compiled parts have no hooks, and so no times of their own.
        self.is_compiled = 'compile' in model.options
        if self.is_compiled:
            if not hasattr(nn.Module, 'compile'):
                raise BenchmarkError(f'{model.name}: torch {torch.__version__} cannot compile parts, torch 2.1 can')
            for name, part in self.module.named_modules():
                if name.rpartition('.')[2] in COMPILED_PARTS and not isinstance(part, nn.ModuleList):
                    part.compile(dynamic=None)
        self._optimizer: Optional[torch.optim.Optimizer] = None

    def run(self, mode: str) -> None:
        """One inference or one training step. The first run after a change of mode is slower: warm up."""
        if mode == INFERENCE:
            self.module.eval()
            self.infer()
        else:
            self.module.train()
            self.compute_loss().backward()
            self.step()

    @torch.no_grad()
    def infer(self) -> List[DetDataSample]:
        """From images to scores, boxes and masks; see :func:`~.workload.fix_proposals_and_detections`."""
        results: List[DetDataSample] = []
        with self._autocast():
            for images, samples in self.batches:
                results += self.module.predict(images, [sample.clone() for sample in samples], rescale=False)
        return results

    def compute_loss(self) -> Tensor:
        """The loss of the first batch. Every call samples the same RoIs."""
        torch.manual_seed(self.seed)
        with self._autocast():
            images, samples = self.batches[0]
            losses = self.module.loss(images, [sample.clone() for sample in samples])
            return self.module.parse_losses(losses)[0]

    def step(self) -> None:
        """A step of SGD with momentum as in ``tools/train.py``, too small to change the weights."""
        if self._optimizer is None:
            trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            settings = with_fused_step(dict(type='SGD', lr=1e-8, momentum=0.9, weight_decay=1e-4), self.module)
            self._optimizer = OPTIMIZERS.build(dict(settings, params=trained))
        self._optimizer.step()
        self._optimizer.zero_grad()

    def count_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    def _read_batches(self, cfg: Config, files: Sequence[str], batch_size: int) -> Iterator[Batch]:
        """The images as the config's test pipeline prepares them."""
        load_image = ImageLoader(cfg)
        for i in range(0, len(files), batch_size):
            data = [load_image(file, i)[1] for file in files[i : i + batch_size]]
            data = self.module.data_preprocessor(pseudo_collate(data), training=False)
            yield data['inputs'], data['data_samples']

    def _use_channels_last(self) -> None:
        self.module.to(memory_format=torch.channels_last)
        self.batches = [
            (images.contiguous(memory_format=torch.channels_last), samples) for images, samples in self.batches
        ]
        use_mmcv_with_contiguous_maps(self.module)

    def _autocast(self) -> ContextManager[Any]:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)
