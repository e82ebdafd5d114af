# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A model made ready to run: what one inference and one training step of it are."""

from contextlib import nullcontext
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn as nn
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.structures import DetDataSample
from mmpanet.swap import SwapError
from .contenders import Contender, build
from .workload import Workload, pin

INFERENCE, TRAINING = MODES = ('inference', 'training')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
Batch = Tuple[Tensor, List[DetDataSample]]
COMPILED = ('backbone', 'neck', 'bbox_head', 'mask_head')


class Setting(NamedTuple):
    """How the models run."""

    device: str = 'cpu'
    dtype: str = 'float32'  # other than this: torch.autocast
    rois_per_chunk: Optional[int] = None  # where the RoI head is PANet's
    images: Tuple[str, ...] = ()  # files to read; then nothing of the workload is used but the batch


class Subject:
    """One model on one workload.

    Args:
        contender (Contender): The model.
        workload (Workload): What it works on.
        setting (Setting): How it runs.
    """

    def __init__(self, contender: Contender, workload: Workload, setting: Setting) -> None:
        self.device = torch.device(setting.device)
        self.dtype = DTYPES[setting.dtype]
        torch.manual_seed(workload.seed)
        self.model = build(contender).to(self.device)
        if setting.images:
            self.batches = list(self._read(contender.cfg, setting.images, workload.batch))
        else:
            samples = [sample.to(self.device) for sample in workload.samples()]
            self.batches = [(workload.images().to(self.device), samples)]
            pin(self.model, workload, self.device)
        roi_head = getattr(self.model, 'roi_head', None)
        if setting.rois_per_chunk and hasattr(roi_head, 'rois_per_chunk'):
            roi_head.rois_per_chunk = setting.rois_per_chunk
        if 'channels_last' in contender.options:
            self._use_channels_last()
        if 'compile' in contender.options:
            for name, module in self.model.named_modules():
                if name.rpartition('.')[2] in COMPILED and not isinstance(module, nn.ModuleList):
                    module.compile(dynamic=None)
        self.seed = workload.seed
        self._optimizer: Optional[torch.optim.Optimizer] = None

    def _use_channels_last(self) -> None:
        self.model.to(memory_format=torch.channels_last)
        self.batches = [
            (images.contiguous(memory_format=torch.channels_last), samples) for images, samples in self.batches
        ]
        for module in self.model.modules():
            # mmcv's RoIAlign misreads such maps: its users have to copy them, and ours copies where it must.
            if type(module).__module__.startswith('mmdet.') and isinstance(module, BaseRoIExtractor):
                module.register_forward_pre_hook(_contiguous_maps)

    def run(self, mode: str) -> None:
        """One inference or one training step; the switch between the two is not free, so warm up after it."""
        if mode == INFERENCE:
            self.model.eval()
            self.infer()
        else:
            self.model.train()
            self.train_step()

    def _read(self, cfg: Config, files: Sequence[str], batch: int) -> Iterator[Batch]:
        """The images as the config's tests see them."""
        pipeline = Compose([step for step in cfg.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations'])
        for i in range(0, len(files), batch):
            data = [pipeline(dict(img_path=file, img_id=i)) for file in files[i : i + batch]]
            data = self.model.data_preprocessor(pseudo_collate(data), training=False)
            yield data['inputs'], data['data_samples']

    @torch.no_grad()
    def infer(self) -> List[DetDataSample]:
        """From the images to scores, boxes and masks of all RoIs, see :func:`~.workload.pin`."""
        results = []
        with self._autocast():
            for images, samples in self.batches:
                results += self.model.predict(images, [sample.clone() for sample in samples], rescale=False)
        return results

    def forward_loss(self) -> Tensor:
        """Of the images with their objects; the RoIs of a step are the same every time."""
        torch.manual_seed(self.seed)
        with self._autocast():
            images, samples = self.batches[0]
            losses = self.model.loss(images, [sample.clone() for sample in samples])
            return self.model.parse_losses(losses)[0]

    def train_step(self) -> None:
        """Forward, backward, and a step of SGD with momentum, too small to move anything."""
        self.forward_loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        if self._optimizer is None:
            parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self._optimizer = torch.optim.SGD(parameters, lr=1e-8, momentum=0.9, weight_decay=1e-4)
        return self._optimizer

    def _autocast(self):
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def image_files(folder: Path) -> Tuple[str, ...]:
    """The images of a folder, by name.

    Raises:
        SwapError: If there are none.
    """
    files = tuple(str(file) for file in sorted(folder.glob('*')) if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise SwapError(f'{folder} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    return files


def _contiguous_maps(module: nn.Module, args: tuple) -> Tuple:
    feats, *others = args
    return (tuple(feat.contiguous() for feat in feats), *others)
