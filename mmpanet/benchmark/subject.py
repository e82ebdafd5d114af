# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A model made ready to run: what one inference and one training step of it are."""
from contextlib import nullcontext
from typing import List, NamedTuple, Optional, Tuple

import torch
import torch.nn as nn
from mmengine.config import Config
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.structures import DetDataSample
from .contenders import build
from .workload import Workload, pin

INFERENCE, TRAINING = MODES = ('inference', 'training')
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
COMPILED = ('backbone', 'neck', 'bbox_head', 'mask_head')


class Setting(NamedTuple):
    """How the models run."""
    device: str = 'cpu'
    dtype: str = 'float32'  # other than this: torch.autocast
    channels_last: bool = False
    compile: bool = False
    rois_per_chunk: Optional[int] = None  # where the RoI head is PANet's


class Subject:
    """One model on one workload.

    Args:
        cfg (Config): Its config.
        workload (Workload): What it works on.
        setting (Setting): How it runs.
    """

    def __init__(self, cfg: Config, workload: Workload, setting: Setting) -> None:
        self.device = torch.device(setting.device)
        self.dtype = DTYPES[setting.dtype]
        torch.manual_seed(workload.seed)
        self.model = build(cfg).to(self.device)
        self.images = workload.images().to(self.device)
        self.samples = [sample.to(self.device) for sample in workload.samples()]
        roi_head = getattr(self.model, 'roi_head', None)
        if setting.rois_per_chunk and hasattr(roi_head, 'rois_per_chunk'):
            roi_head.rois_per_chunk = setting.rois_per_chunk
        if setting.channels_last:
            self._use_channels_last()
        if setting.compile:
            for name, module in self.model.named_modules():
                if name.rpartition('.')[2] in COMPILED and not isinstance(module, nn.ModuleList):
                    module.compile(dynamic=None)
        pin(self.model, workload, self.device)
        self.seed = workload.seed
        self._optimizer: Optional[torch.optim.Optimizer] = None

    def _use_channels_last(self) -> None:
        self.model.to(memory_format=torch.channels_last)
        self.images = self.images.contiguous(memory_format=torch.channels_last)
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

    @torch.no_grad()
    def infer(self) -> List[DetDataSample]:
        """From the images to scores, boxes and masks of all RoIs, see :func:`~.workload.pin`."""
        with self._autocast():
            return self.model.predict(self.images, [sample.clone() for sample in self.samples], rescale=False)

    def forward_loss(self) -> Tensor:
        """Of the images with their objects; the RoIs of a step are the same every time."""
        torch.manual_seed(self.seed)
        with self._autocast():
            losses = self.model.loss(self.images, [sample.clone() for sample in self.samples])
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


def _contiguous_maps(module: nn.Module, args: tuple) -> Tuple:
    feats, *others = args
    return (tuple(feat.contiguous() for feat in feats), *others)
