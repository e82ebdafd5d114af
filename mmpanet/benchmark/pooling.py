# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Times mmcv's RoIAlign and the pooling of this package in turn."""

import math
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import bbox2roi
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor, RotatedAdaptiveFeaturePooling
from mmpanet.utils.paired_times import Ratio, paired_ratio, time_in_turns
from .workload import Workload

STRIDES = (4, 8, 16, 32)
Progress = Callable[[str], None]


class PoolingResult(NamedTuple):
    """One form of pooling in one direction, by mmcv's op and by ours."""

    form: str
    direction: str
    mmcv_seconds: List[float]  # of each round
    mmpanet_seconds: List[float]
    speedup: Ratio  # mmcv's time over ours
    difference: float  # the largest one between the outputs (or the gradients) of the two
    magnitude: float  # the largest absolute value of mmcv's


def run_pooling_benchmark(
    workload: Workload,
    output_size: int = 7,
    channels: int = 256,
    sampling_ratio: int = 2,
    rounds: int = 5,
    device: str = 'cpu',
    progress: Progress = lambda line: None,
) -> List[PoolingResult]:
    """Time mmcv's op and ours in turn, on random maps and the workload's RoIs.

    Args:
        workload: Batch size, image size and number of RoIs.
        output_size: Height and width of the pooled grids.
        channels: Of the maps.
        sampling_ratio: Samples per bin and axis. 0 leaves it to the size of the RoI.
        rounds: How many rounds each op is timed.
        device: Where they run.
        progress: Called with one line per step.

    Returns:
        Forward and backward of adaptive feature pooling (each RoI from every level), of FPN's pooling (each RoI from
        its own level), and of adaptive feature pooling of rotated RoIs, whose op needs a fixed number of samples.
    """
    place = torch.device(device)
    generator = torch.Generator().manual_seed(workload.seed)
    feats = []
    for stride in STRIDES:
        shape = (workload.batch, channels, -(-workload.height // stride), -(-workload.width // stride))
        feats.append(torch.randn(shape, generator=generator).to(place).requires_grad_())
    rois = bbox2roi([proposals.bboxes for proposals in workload.make_proposals()]).to(place)
    layer: Dict[str, Any] = dict(type='RoIAlign', output_size=output_size, sampling_ratio=sampling_ratio)
    cfg: Dict[str, Any] = dict(roi_layer=layer, out_channels=channels, featmap_strides=list(STRIDES))
    forms: Dict[str, Tuple[Tensor, Dict[str, nn.Module]]] = {
        'every level': (
            rois,
            {
                'mmcv': AdaptiveFeaturePooling(**cfg, backend='roi_align'),
                'mmpanet': AdaptiveFeaturePooling(**cfg, backend='embedding_bag'),
            },
        ),
        'its own level': (
            rois,
            {'mmcv': SingleRoIExtractor(**cfg), 'mmpanet': FastSingleRoIExtractor(**cfg, backend='embedding_bag')},
        ),
    }
    if sampling_ratio:
        rotated_cfg = {**cfg, 'roi_layer': {**layer, 'type': 'RoIAlignRotated'}}
        forms['every level, rotated'] = (
            _rotate(rois, generator),
            {
                'mmcv': RotatedAdaptiveFeaturePooling(**rotated_cfg, backend='roi_align'),
                'mmpanet': RotatedAdaptiveFeaturePooling(**rotated_cfg, backend='embedding_bag'),
            },
        )
    results = []
    for form, (rois, extractors) in forms.items():
        progress(form)
        outs = [extractor(feats, rois) for extractor in extractors.values()]
        grad = torch.randn(outs[0].shape, generator=generator).to(place)
        grads = [torch.autograd.grad(out, feats, grad) for out in outs]
        pool = {name: partial(_pool, extractor, feats, rois) for name, extractor in extractors.items()}
        # A graph cannot be run backward twice, so the backward is timed with its forward, which is then subtracted.
        pool_and_backward = {
            f'{name}, both': partial(_pool_and_backward, extractor, feats, rois, grad)
            for name, extractor in extractors.items()
        }
        times = time_in_turns({**pool, **pool_and_backward}, rounds, place, progress)
        forward = {name: times[name] for name in extractors}
        backward = {name: [a - b for a, b in zip(times[f'{name}, both'], times[name])] for name in extractors}
        results += [
            _pooling_result(form, 'forward', forward, [[out] for out in outs]),
            _pooling_result(form, 'backward', backward, grads),
        ]
    return results


def _rotate(rois: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each RoI (N, 5) about its center by a random angle: (N, 6)."""
    size = rois[:, 3:] - rois[:, 1:3]
    angle = (torch.rand(len(rois), 1, generator=generator).to(rois) - 0.5) * math.pi
    return torch.cat([rois[:, :1], rois[:, 1:3] + size / 2, size, angle], dim=1)


def _pooling_result(
    form: str, direction: str, seconds: Dict[str, List[float]], tensors: Sequence[Sequence[Tensor]]
) -> PoolingResult:
    theirs, ours = tensors
    return PoolingResult(
        form,
        direction,
        seconds['mmcv'],
        seconds['mmpanet'],
        paired_ratio(seconds['mmcv'], seconds['mmpanet']),
        max((a - b).abs().max().item() for a, b in zip(theirs, ours)),
        max(a.abs().max().item() for a in theirs),
    )


@torch.no_grad()
def _pool(extractor: nn.Module, feats: Sequence[Tensor], rois: Tensor) -> None:
    extractor(feats, rois)


def _pool_and_backward(extractor: nn.Module, feats: Sequence[Tensor], rois: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(extractor(feats, rois), feats, grad)
