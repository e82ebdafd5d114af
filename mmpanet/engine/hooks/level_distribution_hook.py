# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Dict, Optional, Sequence

import mmcv
import torch
from mmengine.dist import all_reduce
from mmengine.fileio import get
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmpanet.models.layers.argument_checks import check_count
from mmpanet.visualization import LevelDistribution, LevelRecorder, draw_distribution, draw_levels, gate_openings


@HOOKS.register_module()
class LevelDistributionHook(Hook):
    """Draws, at every validation and test, which levels the heads take their features from.

    After a run over the data a picture of the distribution (PANet, Figure 3) and the mean share of every level as a
    scalar; during it, pictures of the pyramid and the RoIs of some images. They go to the visualizer's backends: files
    in ``vis_data/vis_image``, TensorBoard.

    Args:
        interval (int): Every which batch is looked at; the first layer of every head is computed twice for it.
            Defaults to 10.
        num_pictures (int): Images that are drawn, the first of their batch each. Defaults to 2.

    Raises:
        ValueError: If the model has no head that pools several levels.
    """

    def __init__(self, interval: int = 10, num_pictures: int = 2) -> None:
        check_count('interval', interval)
        if not isinstance(num_pictures, int) or num_pictures < 0:
            raise ValueError(f'num_pictures={num_pictures!r} must be a number of images, 0 or above')
        self.interval = interval
        self.num_pictures = num_pictures
        self._recorder: LevelRecorder
        self._distributions: Dict[str, LevelDistribution] = {}
        self._drawn = 0

    def before_run(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._recorder = LevelRecorder(model)
        if not self._recorder.strides:
            raise ValueError(
                'LevelDistributionHook: the model has no roi_head with an AdaptiveFeaturePooling and a head of '
                'num_levels above 1; leave it out of custom_hooks'
            )

    def _before_epoch(self, runner: Runner, mode: str = 'train') -> None:
        if mode != 'train':
            self._distributions = {name: LevelDistribution(self._recorder.strides) for name in self._recorder.heads}
            self._drawn = 0

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch=None, mode: str = 'train') -> None:
        if mode != 'train' and batch_idx % self.interval == 0:
            self._recorder.attach()

    def _after_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch=None,
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
            self._draw(runner, outputs[0], {name: levels.of_image(0) for name, levels in seen.items()})

    def _draw(self, runner, sample, seen):
        image = mmcv.imfrombytes(get(sample.img_path), channel_order='rgb')
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
        runner.visualizer.add_image('level_distribution', draw_distribution(self._distributions), step=runner.iter)
        scalars = {
            f'level_share/{name}/stride_{stride}': share
            for name, distribution in self._distributions.items()
            for stride, share in zip(distribution.strides, distribution.as_dict()['all'] or [])
        }
        for name, openings in gate_openings(runner.model).items():
            scalars.update({f'level_gate/{name}/{i}': opening for i, opening in enumerate(openings.tolist(), start=1)})
        if scalars:
            runner.visualizer.add_scalars(scalars, step=runner.iter)
