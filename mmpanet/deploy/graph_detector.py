# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""An exported graph as a model that mmengine's runner tests."""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.datasets.checks import check_class_order
from mmpanet.models.inclusive_boxes import InclusiveBoxRoIHead, end_after_last_pixel
from mmpanet.utils.errors import ExportError
from .export import SETTINGS
from .runtimes import open_graph


def has_inclusive_boxes(cfg: Config) -> bool:
    """Whether the boxes of a graph of the config's model end with their last pixel."""
    kind = (cfg.model.get('roi_head') or {}).get('type')
    cls = MODELS.get(kind) if isinstance(kind, str) else kind
    return isinstance(cls, type) and issubclass(cls, InclusiveBoxRoIHead)


def check_classes(cfg: Config, graph: Union[str, Path]) -> None:
    """Refuse to test labels that the export numbered in another order, if a file of settings says the order."""
    file = Path(graph).with_name(SETTINGS)
    if file.is_file():
        check_class_order(cfg, _settings_of(graph).get('classes') or (), str(file))


def _has_inclusive_boxes(graph: Union[str, Path]) -> bool:
    settings = _settings_of(graph)
    if 'inclusive_boxes' not in settings:
        raise ExportError(
            f'{Path(graph).with_name(SETTINGS)}: does not say whether boxes end with their last pixel '
            '(inclusive_boxes): export again'
        )
    return bool(settings['inclusive_boxes'])


def _settings_of(graph: Union[str, Path]) -> Dict[str, Any]:
    """The file of settings beside a graph."""
    file = Path(graph).with_name(SETTINGS)
    try:
        settings = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f'{file}: cannot be read, or is no JSON ({error}): export again') from error
    if not isinstance(settings, dict):
        raise ExportError(f'{file}: holds a {type(settings).__name__}, and an export writes a dict: export again')
    return settings


@MODELS.register_module()
class GraphDetector(BaseModel):
    """Predictions of ``end2end.onnx`` for mmdet's test loop and metrics.

    Images go through the graph one by one, as the test pipeline makes them. Boxes are scaled to the original image, and
    masks are drawn there, as mmdet does with ``rescale=True``.

    Args:
        graph (str | Path): The graph.
        runtime (str): A key of :data:`.runtimes.RUNTIMES`. Defaults to 'onnxruntime'.
        threads (int): CPU threads; 0 leaves the choice to the runtime. Defaults to 0.
        mask_threshold (float): ``model.test_cfg.rcnn.mask_thr_binary`` of the config. Defaults to 0.5.
        inclusive_boxes (bool, optional): Whether the boxes of the graph end with their last pixel. Defaults to None: as
            ``detector.json`` beside the graph says.

    Raises:
        ExportError: If the graph cannot be run, or if nothing says where its boxes end.
    """

    def __init__(
        self,
        graph: Union[str, Path],
        runtime: str = 'onnxruntime',
        threads: int = 0,
        mask_threshold: float = 0.5,
        inclusive_boxes: Optional[bool] = None,
    ) -> None:
        super().__init__()
        self.run_graph = open_graph(graph, runtime, threads)
        self.mask_threshold = mask_threshold
        self.inclusive_boxes = _has_inclusive_boxes(graph) if inclusive_boxes is None else inclusive_boxes

    def forward(self, inputs: Any, data_samples: Optional[List[DetDataSample]] = None, mode: str = 'predict') -> Any:
        """Detect; for ``mode='predict'`` alone."""
        if mode != 'predict':
            raise ExportError(f'mode={mode!r}: a graph can only predict')
        return [self._detect(image, sample) for image, sample in zip(inputs, data_samples or [])]

    def test_step(self, data: Dict[str, Any]) -> List[DetDataSample]:
        """Detect objects in the images of a batch, which are not stacked and not normalized."""
        return self(**data)

    val_step = test_step

    def _detect(self, image: Tensor, sample: DetDataSample) -> DetDataSample:
        dets, labels, *masks = (output[0] for output in self.run_graph(image.numpy()[None]))
        found = labels >= 0
        boxes = torch.from_numpy(dets[found, :4])
        scale = boxes.new_tensor(sample.get('scale_factor', (1.0, 1.0))).repeat(2)
        instances = InstanceData(
            bboxes=boxes / scale, scores=torch.from_numpy(dets[found, 4]), labels=torch.from_numpy(labels[found])
        )
        if masks:
            instances.masks = self._in_original_image(masks[0][found], instances.bboxes, image, sample)
        if self.inclusive_boxes:
            instances.bboxes = end_after_last_pixel(instances.bboxes, (1, 1), sample.ori_shape)
        sample.pred_instances = instances
        return sample

    def _in_original_image(self, masks: np.ndarray, boxes: Tensor, image: Tensor, sample: DetDataSample) -> Tensor:
        height, width = sample.ori_shape
        if masks.dtype != np.float32:
            if (height, width) != tuple(image.shape[1:]):
                raise ExportError(
                    f'the graph draws masks into the resized image, {tuple(image.shape[1:])}, not into the original '
                    f'one, {(height, width)}: export with --masks box'
                )
            return torch.from_numpy(masks)
        binary = self.mask_threshold >= 0  # below 0 mmdet gives probabilities in eight bits
        drawn = torch.zeros(len(masks), height, width, dtype=torch.bool if binary else torch.uint8)
        for i, mask in enumerate(torch.from_numpy(masks)):
            part, (rows, columns) = _do_paste_mask(mask[None, None], boxes[i : i + 1], height, width, skip_empty=True)
            drawn[i][rows, columns] = part[0] >= self.mask_threshold if binary else (part[0] * 255).to(torch.uint8)
        return drawn
