# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The pooling op alone beside mmcv's: every RoI on every level, and on a level of its own."""

from functools import partial
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
import torch.nn as nn
from torch import Tensor

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import bbox2roi
from mmpanet.models import AdaptiveFeaturePooling, FastSingleRoIExtractor
from .measure import Ratio, interleave, paired_ratio
from .workload import Workload

STRIDES = (4, 8, 16, 32)


class PoolingRow(NamedTuple):
    """One form of pooling, in one direction, mmcv's op and ours."""

    form: str
    direction: str
    seconds: Tuple[List[float], List[float]]  # mmcv's and ours, a round
    speedup: Ratio  # mmcv's time over ours
    difference: float  # the largest, of outputs or of gradients
    magnitude: float  # the largest of mmcv's


def benchmark_pooling(
    workload: Workload,
    output_size: int = 7,
    channels: int = 256,
    sampling_ratio: int = 2,
    rounds: int = 5,
    device: str = 'cpu',
    progress: Callable[[str], None] = lambda line: None,
) -> List[PoolingRow]:
    """Time both ops in turn on random maps and the workload's RoIs.

    Args:
        workload: Batch, image size, and RoIs an image.
        output_size: Edge of the pooled grids.
        channels: Of the maps.
        sampling_ratio: Samples a bin and axis; at least 1.
        rounds: How often each is timed, there and back.
        device: Where.
        progress: Is told what is going on.

    Returns:
        Forward and backward of adaptive feature pooling, and of FPN's, a level a RoI.
    """
    place = torch.device(device)
    generator = torch.Generator().manual_seed(workload.seed)
    feats = [
        torch.randn(
            workload.batch, channels, -(-workload.height // stride), -(-workload.width // stride), generator=generator
        )
        .to(place)
        .requires_grad_()
        for stride in STRIDES
    ]
    rois = bbox2roi([proposals.bboxes for proposals in workload.proposals()]).to(place)
    rows = []
    for form, extractors in _forms(output_size, channels, sampling_ratio).items():
        progress(form)
        outs = [extractor(feats, rois) for extractor in extractors]
        grad = torch.randn(outs[0].shape, generator=generator).to(place)
        grads = [torch.autograd.grad(out, feats, grad) for out in outs]
        results = {'forward': [[out] for out in outs], 'backward': grads}
        functions = {
            'forward': [partial(_forward, extractor, feats, rois) for extractor in extractors],
            'backward': [partial(_backward, extractor, feats, rois, grad) for extractor in extractors],
        }
        times: Dict[str, List[List[float]]] = {}
        for direction, pair in functions.items():
            found = interleave(dict(zip(('mmcv', 'mmpanet'), pair)), rounds, place, progress=progress)
            times[direction] = [found['mmcv'], found['mmpanet']]
        # a graph cannot be run backward twice, so that it is timed with its forward, which is then taken off
        times['backward'] = [
            [both - forward for both, forward in zip(*pair)] for pair in zip(times['backward'], times['forward'])
        ]
        for direction, (theirs, ours) in times.items():
            difference, magnitude = _difference(*results[direction])
            rows.append(PoolingRow(form, direction, (theirs, ours), paired_ratio(theirs, ours), difference, magnitude))
    return rows


def _forms(output_size: int, channels: int, sampling_ratio: int) -> Dict[str, List[nn.Module]]:
    cfg = dict(
        roi_layer=dict(type='RoIAlign', output_size=output_size, sampling_ratio=sampling_ratio),
        out_channels=channels,
        featmap_strides=list(STRIDES),
    )
    return {
        'every level': [AdaptiveFeaturePooling(**cfg, backend=name) for name in ('roi_align', 'embedding_bag')],
        'its own level': [SingleRoIExtractor(**cfg), FastSingleRoIExtractor(**cfg, backend='embedding_bag')],
    }


@torch.no_grad()
def _forward(extractor: nn.Module, feats: Sequence[Tensor], rois: Tensor) -> None:
    extractor(feats, rois)


def _backward(extractor: nn.Module, feats: Sequence[Tensor], rois: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(extractor(feats, rois), feats, grad)


def _difference(theirs: Sequence[Tensor], ours: Sequence[Tensor]) -> Tuple[float, float]:
    return (max((a - b).abs().max().item() for a, b in zip(theirs, ours)), max(a.abs().max().item() for a in theirs))
