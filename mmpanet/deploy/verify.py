# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The detections of an exported graph beside those of PyTorch."""

from pathlib import Path
from typing import NamedTuple, Sequence, Union

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet.structures.bbox import bbox_overlaps
from mmpanet.apis.image_loader import ImageLoader
from mmpanet.models.inclusive_boxes import InclusiveBoxRoIHead, end_after_last_pixel
from .export import GRAPH
from .runtimes import open_graph

MATCHING_IOU = 0.9


class Differences(NamedTuple):
    """Largest differences over all images."""

    detections: int  # of PyTorch
    matched: int  # of those: the graph has one of the same label, with an IoU of at least MATCHING_IOU
    extra: int  # detections of the graph alone
    bboxes: float  # pixels, of the matched ones
    scores: float
    masks: float  # pixels that differ, as a share of the pixels of PyTorch's masks

    def report(self) -> str:
        """One line for each figure."""
        return '\n'.join(
            f'{name:12} {value:.3g}' if isinstance(value, float) else f'{name:12} {value}'
            for name, value in self._asdict().items()
        )


@torch.no_grad()
def compare_detections(
    model: nn.Module,
    cfg: Config,
    folder: Union[str, Path],
    images: Sequence[Union[str, Path]],
    runtime: str = 'onnxruntime',
    name: str = GRAPH,
) -> Differences:
    """Run images through the graph and through PyTorch.

    Both get the image as the test pipeline resizes it; detections are compared in its pixels.

    Args:
        model (nn.Module): The detector that was exported.
        cfg (Config): Its config.
        folder (str | Path): The export's.
        images (Sequence[str | Path]): Image files.
        runtime (str): A key of :data:`.runtimes.RUNTIMES`.
        name (str): The file of the graph in the folder.

    Returns:
        Differences: Largest differences.
    """
    model.eval()
    graph = open_graph(Path(folder, name), runtime)
    load_image = ImageLoader(cfg)
    inclusive = isinstance(getattr(model, 'roi_head', None), InclusiveBoxRoIHead)
    total = Differences(0, 0, 0, 0.0, 0.0, 0.0)
    mask_pixels = other_pixels = 0
    for number, path in enumerate(images):
        _, data = load_image(path, number)
        image = data['inputs']
        batch = model.data_preprocessor(dict(inputs=[image], data_samples=[data['data_samples']]), False)
        expected = model.predict(batch['inputs'], batch['data_samples'], rescale=False)[0].pred_instances
        dets, labels, *masks = (output[0] for output in graph(image.numpy()[None]))
        if inclusive:
            sample = data['data_samples']
            ends = end_after_last_pixel(torch.from_numpy(dets[:, :4]), sample.scale_factor, sample.img_shape)
            dets = np.concatenate([ends.numpy(), dets[:, 4:]], axis=1)
        found = labels >= 0
        pairs = match_detections(expected, dets[found], labels[found])
        boxes, scores = expected.bboxes.numpy(), expected.scores.numpy()
        left, right = pairs[:, 0], pairs[:, 1]
        total = Differences(
            total.detections + len(expected),
            total.matched + len(pairs),
            total.extra + int(found.sum()) - len(pairs),
            max(total.bboxes, float(np.abs(boxes[left] - dets[right, :4]).max(initial=0))),
            max(total.scores, float(np.abs(scores[left] - dets[right, 4]).max(initial=0))),
            0.0,
        )
        if masks and len(pairs):  # without objects mmdet's masks have the size of the original image
            theirs = expected.masks.numpy()[left]
            height, width = theirs.shape[1:]
            ours = masks[0][right, :height, :width].astype(np.int16)
            tolerance = int(theirs.dtype == np.uint8)  # probabilities from 0 to 255, of mask_thr_binary < 0
            mask_pixels += int((theirs > 0).sum())
            other_pixels += int((np.abs(ours - theirs) > tolerance).sum())
    return total._replace(masks=other_pixels / max(mask_pixels, 1))


def match_detections(expected: InstanceData, dets: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pairs of detections of one label that lie on each other, each used once; better scores choose first.

    Args:
        expected (InstanceData): PyTorch's, n detections, best first.
        dets (np.ndarray): (m, 5), the graph's.
        labels (np.ndarray): (m,).

    Returns:
        np.ndarray: (pairs, 2), int: indices of the former and of the latter.
    """
    overlaps = bbox_overlaps(expected.bboxes, torch.from_numpy(dets[:, :4])).numpy()
    overlaps[expected.labels.numpy()[:, None] != labels[None]] = 0
    pairs = []
    for index, row in enumerate(overlaps):
        if len(row) and row.max() >= MATCHING_IOU:
            best = int(row.argmax())
            pairs.append((index, best))
            overlaps[:, best] = 0
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
