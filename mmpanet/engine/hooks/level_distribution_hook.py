# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, Dict, Optional, Sequence

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmpanet.models.layers.argument_checks import check_count
from mmpanet.utils.errors import ConfigError
from mmpanet.visualization import (
    LevelDistribution,
    LevelRecorder,
    RoILevels,
    displayable,
    draw_distribution,
    draw_gates,
    draw_levels,
    gate_openings,
    gate_values,
)


@HOOKS.register_module()
class LevelDistributionHook(Hook):
    """Draws, at every validation and test, which levels the heads take their features from.

    During a run over the data it draws the pyramid and the RoIs of some images. After the run it draws the
    distribution (PANet, Figure 3) and the gates, if the model has some. It logs the mean share of every level, and the
    mean magnitude of the gates of every level, as scalars. All of it goes to the visualizer's backends, such as files
    in ``vis_data/vis_image`` or TensorBoard. For a model that has gates in its neck alone, it draws and logs the gates.

    Args:
        interval (int): One batch in ``interval`` is looked at. The first layer of every head is computed twice for
            it. Defaults to 10.
        num_pictures (int): Images that are drawn: the first image of as many batches. With test-time augmentation none
            is drawn. Defaults to 2.

    Raises:
        ConfigError: If the model has neither a head that pools several levels nor gates.
    """

    priority = 'ABOVE_NORMAL'  # before EMAHook puts the weights back that were not evaluated

    def __init__(self, interval: int = 10, num_pictures: int = 2) -> None:
        check_count('interval', interval)
        if not isinstance(num_pictures, int) or num_pictures < 0:
            raise ConfigError(f'num_pictures={num_pictures!r} must be a number of images, 0 or above')
        self.interval = interval
        self.num_pictures = num_pictures
        self._recorder: LevelRecorder
        self._distributions: Dict[str, LevelDistribution] = {}
        self._drawn = 0

    def before_run(self, runner: Runner) -> None:
        model = _unwrapped(runner.model)
        if isinstance(model, BaseTTAModel):
            self.num_pictures = 0  # RoIs of the other augmentations of an image lie elsewhere
        self._recorder = LevelRecorder(model)
        if not self._recorder.strides:
            self.num_pictures = 0
            if not gate_values(model):
                raise ConfigError(
                    'LevelDistributionHook: the model has no gates, and no roi_head with an AdaptiveFeaturePooling and '
                    'a head of num_levels above 1; leave it out of custom_hooks'
                )

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._distributions = self._recorder.new_distributions()
            self._drawn = 0

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        if mode != 'train' and batch_idx % self.interval == 0:
            self._recorder.attach()

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Optional[Sequence[DetDataSample]] = None,
        mode: str = 'train',
    ) -> None:
        if mode == 'train' or batch_idx % self.interval or outputs is None:
            return
        self._recorder.detach()
        seen = self._recorder.take()
        for name, levels in seen.items():
            self._distributions[name].add(levels)
        if self._drawn < self.num_pictures:
            self._drawn += 1
            shown = {name: levels.of_image(0) for name, levels in seen.items()}
            self._draw(runner, data_batch, outputs[0], shown)

    def _draw(self, runner: Runner, data_batch: Any, sample: DetDataSample, seen: Dict[str, RoILevels]) -> None:
        image = data_batch['inputs']  # as the config's pipeline loaded it, (C, H, W)
        while isinstance(image, (list, tuple)):
            image = image[0]
        image = displayable((image if image.dim() == 3 else image[0]).permute(1, 2, 0).cpu().numpy())
        size = (*sample.img_shape[:2], *sample.get('batch_input_shape', sample.img_shape)[:2])
        picture = draw_levels(image, [level[0] for level in self._recorder.pyramid], size, seen, self._recorder.strides)
        runner.visualizer.add_image(f'levels_{self._drawn}', picture, step=runner.iter)

    def _after_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode == 'train':
            return
        for distribution in self._distributions.values():
            numbers = torch.cat([distribution.counts[:, None], distribution.sums], dim=1)
            numbers = numbers.to(next(runner.model.parameters()).device)
            all_reduce(numbers)  # over the processes of a distributed run
            distribution.counts, distribution.sums = numbers[:, 0].cpu(), numbers[:, 1:].cpu()
        if self._distributions:
            picture = draw_distribution(self._distributions)
            runner.visualizer.add_image('level_distribution', picture, step=runner.iter)
        scalars = {
            f'level_share/{name}/stride_{stride}': share
            for name, distribution in self._distributions.items()
            for stride, share in zip(distribution.strides, distribution.as_dict()['all'] or [])
        }
        gates = gate_values(_unwrapped(runner.model))
        if gates:
            runner.visualizer.add_image('gates', draw_gates(gates), step=runner.iter)
        for name, values in gates.items():
            openings = enumerate(gate_openings(values), start=1)
            scalars.update({f'level_gate/{name}/{level}': opening for level, opening in openings})
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
