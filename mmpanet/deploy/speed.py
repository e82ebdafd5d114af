# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Detectors as functions from an image to a number of detections, for timing: PyTorch, graphs, and torchvision's.

Each function does all that stands between a resized image and its masks: normalization, network, both NMS and the
drawing of masks.
"""

from pathlib import Path
from typing import Any, Callable, Dict, List, Union

import torch
import torch.nn as nn
from torch import Tensor

from mmpanet.utils.errors import ConfigError, ExportError
from .runtimes import open_graph

Detector = Callable[[], int]
SPREAD = 3.0  # standard deviation of the logits of a trained box head, roughly
CANDIDATES = 400  # boxes above the score threshold, before NMS


def make_scores_spread(layer: nn.Linear, run: Callable[[], object], background: int) -> float:
    """Change the random weights of a box head's class layer so that some boxes are sure of a class, as after training.

    A detector with random weights gives all classes nearly the same score, and detects nothing.

    Args:
        layer: The layer of the class scores.
        run: Runs the detector once.
        background: The index of the background among the classes.

    Returns:
        The score threshold that :data:`CANDIDATES` boxes pass.
    """
    seen: List[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    try:
        run()
        mean = seen[-1].mean(0)
        scale = SPREAD / (seen[-1] - mean).std()
        with torch.no_grad():
            layer.bias.copy_((layer.bias - mean) * scale)
            layer.weight.mul_(scale)
        run()
    finally:
        handle.remove()
    scores = seen[-1].softmax(dim=1)
    scores[:, background] = 0
    return scores.flatten().topk(min(CANDIDATES, scores.numel())).values[-1].item()


def eager_detector(model: nn.Module, data: Dict[str, Any]) -> Detector:
    """A detector of mmdet in PyTorch.

    Args:
        model: The detector in evaluation mode.
        data: A batch of one image, as its test pipeline makes it.
    """

    @torch.no_grad()
    def detect() -> int:
        inputs = dict(inputs=list(data['inputs']), data_samples=[sample.clone() for sample in data['data_samples']])
        return len(model.test_step(inputs)[0].pred_instances)

    return detect


def random_detector(model: nn.Module, data: Dict[str, Any]) -> Detector:
    """:func:`eager_detector` of a two-stage detector with random weights, which detects as many boxes as it may.

    Raises:
        ConfigError: If the detector has no box head of one stage.
    """
    layer = getattr(getattr(getattr(model, 'roi_head', None), 'bbox_head', None), 'fc_cls', None)
    if layer is None:
        raise ConfigError(f'a {type(model).__name__} with random weights cannot be timed: give a checkpoint')
    detect = eager_detector(model, data)
    model.roi_head.test_cfg.score_thr = make_scores_spread(layer, detect, background=-1)
    return detect


def graph_detector(path: Union[str, Path], runtime: str, threads: int, image: Tensor) -> Detector:
    """An exported graph.

    Args:
        path: ``end2end.onnx``, with masks drawn into the image.
        runtime: A key of :data:`.runtimes.RUNTIMES`.
        threads: CPU threads; 0 leaves the choice to the runtime.
        image: (3, H, W), uint8.
    """
    graph, batch = open_graph(path, runtime, threads), image.numpy()[None]
    return lambda: int((graph(batch)[1] >= 0).sum())


def torchvision_detector(name: str, image: Tensor, proposals: int, detections: int) -> Detector:
    """A Mask R-CNN of torchvision with random weights, without its own resizing.

    Args:
        name: A function of ``torchvision.models.detection``, such as 'maskrcnn_resnet50_fpn'.
        image: (3, H, W), uint8, BGR.
        proposals: The number of proposals.
        detections: The largest number of detections.

    Raises:
        ExportError: If torchvision is not installed, does not fit this torch, or has no such model.
    """
    try:
        from torchvision.models import detection
    except ImportError as error:
        raise ExportError('torchvision is not installed: pip install torchvision') from error
    except RuntimeError as error:  # its operators are built for one version of torch
        raise ExportError(f'torchvision does not fit torch {torch.__version__}: {error}') from error
    if not name.startswith('maskrcnn_') or not hasattr(detection, name):
        raise ExportError(f'torchvision.models.detection has no Mask R-CNN of the name {name!r}')
    height, width = image.shape[1:]
    model = getattr(detection, name)(
        weights=None,
        weights_backbone=None,
        min_size=min(height, width),
        max_size=max(height, width),
        rpn_post_nms_top_n_test=proposals,
        box_detections_per_img=detections,
        box_score_thresh=1.0,  # no box passes until the threshold is known
    ).eval()
    rgb = image.flip(0)

    @torch.no_grad()
    def detect() -> int:
        [found] = model([rgb.float() / 255])
        # torchvision draws probabilities; a user thresholds them, as mmdet and the graphs do.
        return len(found['masks'] >= 0.5)

    layer = model.roi_heads.box_predictor.cls_score
    model.roi_heads.score_thresh = make_scores_spread(layer, detect, background=0)
    return detect
