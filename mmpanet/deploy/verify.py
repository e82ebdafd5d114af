# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What an exported detector computes, beside what PyTorch does."""

from typing import Dict, Sequence

import cv2
import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import Compose

from mmdet.utils import get_test_pipeline_cfg
from .export import ExportError
from .graphs import BoxGraph, DenseGraph, MaskGraph
from .onnx_detector import ONNXDetector


@torch.no_grad()
def verify(model: nn.Module, cfg: Config, folder: str, images: Sequence[str]) -> Dict[str, float]:
    """Largest differences, over all images, between onnxruntime and PyTorch.

    Args:
        model (nn.Module): The detector that was exported.
        cfg (Config): Its config.
        folder (str): The export's.
        images (Sequence[str]): Paths of images.

    Returns:
        dict[str, float]: ``maps``, ``rpn``, ``box``, ``mask``: of the graphs,
        given the same inputs; relative to the largest value of each output
        where that is above 1. ``bboxes`` (pixels), ``scores``: of the whole,
        from the file on; ``masks``: pixels of the images that differ, as a
        share of those in PyTorch's masks; ``detections``: how many there
        were, ``unmatched``: how many labels or counts differ.
    """
    model.eval()
    detector = ONNXDetector(folder)
    pipeline = Compose([step for step in get_test_pipeline_cfg(cfg) if step['type'] != 'LoadAnnotations'])
    worst: Dict[str, float] = {}

    def note(name: str, value: float) -> None:
        worst[name] = max(worst.get(name, 0.0), float(value))

    detections = unmatched = mask_pixels = other_pixels = 0
    for path in images:
        image = cv2.imread(str(path))
        if image is None:
            raise ExportError(f'{path}: no image that can be read')
        _compare_graphs(model, detector, image, note)
        data = pipeline(dict(img_path=str(path), img_id=0))
        data = dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
        expected = model.test_step(data)[0].pred_instances
        found = detector(image)
        detections += len(expected)
        same = min(len(expected), len(found['scores']))
        unmatched += abs(len(expected) - len(found['scores']))
        unmatched += int((expected.labels.numpy()[:same] != found['labels'][:same]).sum())
        if same:
            note('bboxes', np.abs(expected.bboxes.numpy()[:same] - found['bboxes'][:same]).max())
            note('scores', np.abs(expected.scores.numpy()[:same] - found['scores'][:same]).max())
        if 'masks' in found:
            masks = expected.masks.numpy()
            mask_pixels += masks.sum()
            other_pixels += (masks[:same] != found['masks'][:same]).sum()
    if 'mask' in detector.settings:
        worst['masks'] = float(other_pixels / max(mask_pixels, 1))
    return dict(worst, detections=detections, unmatched=unmatched)


def _compare_graphs(model: nn.Module, detector: ONNXDetector, image: np.ndarray, note) -> None:
    """Each graph beside its module, on the same inputs."""
    x, shape, _ = detector.preprocess(image)
    outputs = detector.graphs['dense'].run(None, {'image': x})
    count = detector.settings['num_maps']
    for i, (output, expected) in enumerate(zip(outputs, DenseGraph(model)(torch.from_numpy(x)))):
        note('maps' if i < count else 'rpn', _difference(output, expected))
    maps = outputs[:count]
    rois = detector.propose(outputs[count : 2 * count], outputs[2 * count :], shape)
    for name, graph in (('box', BoxGraph), ('mask', MaskGraph)):
        if name not in detector.settings:
            continue
        extractor = getattr(model.roi_head, 'bbox_roi_extractor' if name == 'box' else 'mask_roi_extractor')
        head = graph(model.roi_head).head
        feats = tuple(torch.from_numpy(feat) for feat in maps[: extractor.num_inputs])
        # The model's own pooling, not the export's.
        predicted = head(extractor(feats, torch.nn.functional.pad(torch.from_numpy(rois), (1, 0))))
        predicted = (predicted[0].softmax(-1), predicted[1]) if name == 'box' else (predicted.sigmoid(),)
        for output, expected in zip(detector._run(name, maps, rois), predicted):
            note(name, _difference(output, expected))


def _difference(output: np.ndarray, expected: torch.Tensor) -> float:
    expected = expected.numpy()
    return np.abs(output - expected).max(initial=0) / max(1, np.abs(expected).max(initial=0))
