# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Compare the outputs and the costs of a model before and after the swap, on one image."""

import os
import time
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import mmcv
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmpanet.ops import direct_convolutions
from mmpanet.ops.flop_counter import count_flops
from mmpanet.utils.errors import DataError
from mmpanet.utils.files import PathLike
from mmpanet.utils.logging import quiet_logger
from mmpanet.utils.model_building import build_model, nodes_along
from .checkpoint import find_model_of_checkpoint, read_checkpoint
from .model_search import find_models, is_swapped
from .warm_start import has_warm_start
from .weights import carry_weights

LONG_EDGE, SHORT_EDGE = 1333, 800  # largest size of the image: mmdet's usual test size
NUM_PROPOSALS = 100  # for a detector that has no RPN and takes proposals


class Costs(NamedTuple):
    """The costs of one model on one image."""

    parameters: int
    macs: Optional[int]  # multiply-adds of convolutions and matrix products; None if this torch cannot count them
    seconds: float


class Verification(NamedTuple):
    """The result of :func:`verify`."""

    # For each output: its shape before and after, and the largest difference, or None if the shapes differ. For masks
    # it is the share of the pixels that differ.
    differences: Dict[str, Tuple[tuple, tuple, Optional[float]]]
    before: Costs
    after: Costs

    def report(self) -> str:
        """Two tables: the outputs, and the costs."""
        boxes_differ = self.differences.get('pred_instances.bboxes', (0, 0, 0))[2] != 0
        width = max(len(name) for name in self.differences)
        lines = [f'{"output":{width}}  {"shape":24}  largest difference']
        for name, (old, new, difference) in self.differences.items():
            if difference is None:
                lines.append(f'{name:{width}}  {_shape(old)} before, {_shape(new)} after: not comparable')
            else:
                of_what = ' of the pixels' if name.endswith('masks') else ''
                lines.append(f'{name:{width}}  {_shape(old):24}  {difference:.3g}{of_what}')
        if boxes_differ:
            lines.append(
                'The boxes differ, so the labels, scores and masks in the two columns belong to different objects.'
            )
        lines += ['', f'{"":24}{"before":>12}{"after":>12}{"ratio":>8}']
        for what, unit, digits in (('parameters', 1e6, 2), ('macs', 1e9, 1), ('seconds', 1, 3)):
            label = dict(parameters='parameters (M)', macs='multiply-adds (G)', seconds='seconds per image')[what]
            old, new = getattr(self.before, what), getattr(self.after, what)
            if old is not None:
                lines.append(f'{label:24}{old / unit:12.{digits}f}{new / unit:12.{digits}f}{new / old:8.2f}')
        return '\n'.join(lines)


def verify(
    cfg: Config, new_cfg: Config, checkpoint: Optional[PathLike] = None, image: Optional[PathLike] = None, runs: int = 3
) -> Verification:
    """Compare the models of two configs, with the same weights, on one image.

    Args:
        cfg: The old config.
        new_cfg: The new config, which :func:`swap_config` made from the old one.
        checkpoint: Weights of the old model. Without them both models start from the same random weights.
        image: An image file. Without it a generated image of 480 x 640 pixels is used.
        runs: How often each model is timed, in turn. The result is the median.

    Returns:
        Verification: The differences of the levels of the neck, of the outputs of each head and of the predictions,
            and the costs. In a tracker or a semi-supervised model, the detector is compared.

    Raises:
        CheckpointError: If the checkpoint cannot be read or is of another model.
        DataError: If the image cannot be read.
    """
    path = next(path for path, model in find_models(new_cfg.model) if is_swapped(model))
    old, new = build_model(cfg, path), build_model(new_cfg, path)
    if checkpoint is None:
        with quiet_logger():
            old.init_weights()
        weights = {name: value.clone() for name, value in old.state_dict().items()}
    else:
        weights = read_checkpoint(checkpoint)
        weights = weights.get('state_dict', weights)
        if path != find_model_of_checkpoint(weights, new_cfg):
            prefixes = (f'{".".join(path[1:])}.', 'teacher.', 'wrapped_model.')
            weights = {
                name[len(prefix) :]: value
                for prefix in prefixes
                for name, value in weights.items()
                if name.startswith(prefix)
            }
    carry_weights(weights, old, new, has_warm_start(new_cfg))

    inputs = _inputs(old, preprocessor_of(cfg, path), image)
    models = (old.eval(), new.eval())
    with direct_convolutions():  # What differs is due to the swap, not to the rounding of another algorithm.
        outputs = [_outputs(model, inputs) for model in models]
    differences = {
        name: _compare_tensors(outputs[0].get(name), outputs[1].get(name))
        for name in dict.fromkeys([*outputs[0], *outputs[1]])
    }
    seconds = [[_time_prediction(model, inputs) for model in models] for _ in range(runs)]
    costs = [
        Costs(sum(parameter.numel() for parameter in model.parameters()), _count_macs(model, inputs), median(times))
        for model, times in zip(models, zip(*seconds))
    ]
    return Verification(differences, *costs)


def preprocessor_of(cfg: Config, path: Tuple[str, ...]) -> DetDataPreprocessor:
    """A preprocessor that normalizes as the model's does, which may stand in a wrapper or beside the detector."""
    found: dict = {}
    for node in nodes_along(cfg, path):
        if not isinstance(node, dict):
            continue
        candidate = node.get('data_preprocessor') or {}
        found = next((one for one in (candidate, candidate.get('data_preprocessor') or {}) if one.get('mean')), found)
    kept = ('mean', 'std', 'bgr_to_rgb', 'rgb_to_bgr', 'pad_size_divisor')
    return DetDataPreprocessor(**{key: found[key] for key in kept if key in found})


def _inputs(model: nn.Module, preprocessor: DetDataPreprocessor, image: Optional[PathLike]) -> dict:
    if image is None:
        pixels = generated_image(480, 640)
    else:
        if not os.path.isfile(image):
            raise DataError(f'there is no image {image}')
        pixels = mmcv.imread(os.fspath(image))
        if pixels is None:
            raise DataError(f'{image} is not an image')
        pixels = mmcv.imrescale(pixels, (LONG_EDGE, SHORT_EDGE))
        pixels = torch.from_numpy(pixels).permute(2, 0, 1)
    size = tuple(pixels.shape[1:])
    sample = DetDataSample(metainfo=dict(img_id=0, img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    if hasattr(model, 'roi_head') and not getattr(model, 'with_rpn', True):
        corners = torch.rand(NUM_PROPOSALS, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1)[0]
        boxes = corners.flatten(1) * torch.tensor([size[1], size[0]] * 2)
        sample.proposals = InstanceData(bboxes=boxes, scores=torch.ones(NUM_PROPOSALS))
    return preprocessor(dict(inputs=[pixels], data_samples=[sample]))


def generated_image(height: int, width: int) -> Tensor:
    """Colored rectangles on noise, (3, height, width). The image is always the same."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    for _ in range(8):
        y, x = (torch.rand(2, generator=generator) * torch.tensor([height, width])).int().tolist()
        h, w = (torch.rand(2, generator=generator) * torch.tensor([height, width]) / 3).int().tolist()
        pixels[:, y : y + h + 1, x : x + w + 1] = torch.randint(
            0, 256, (3, 1, 1), generator=generator, dtype=torch.uint8
        )
    return pixels


@torch.no_grad()
def _outputs(model: nn.Module, inputs: dict) -> Dict[str, Tensor]:
    """Run a model, and collect the levels of the neck, the outputs of the heads and the predictions by name."""
    outputs: Dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            outputs.update((key, value.detach().clone()) for key, value in _named_tensors(name, output))

        return hook

    # The names of the heads of a cascade end with a number.
    hooks = [
        module.register_forward_hook(record(name))
        for name, module in model.named_modules()
        if name == 'neck' or name.rstrip('.0123456789').endswith('_head')
    ]
    try:
        results = _predict(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for sample in results:
        for kind in ('pred_instances', 'pred_sem_seg', 'pred_panoptic_seg'):
            for key, value in sample.get(kind).items() if kind in sample else ():
                outputs[f'{kind}.{key}'] = torch.as_tensor(value)
    return outputs


def _predict(model: nn.Module, inputs: dict) -> List[DetDataSample]:
    samples = [sample.clone() for sample in inputs['data_samples']]  # the model writes its predictions into them
    return model(inputs['inputs'], samples, mode='predict')


def _named_tensors(name: str, output: Any) -> Iterator[Tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, dict):
        for key, item in output.items():
            yield from _named_tensors(f'{name}.{key}', item)
    elif isinstance(output, (list, tuple)):
        for i, item in enumerate(output):
            yield from _named_tensors(f'{name}[{i}]', item)


def _compare_tensors(old: Optional[Tensor], new: Optional[Tensor]) -> Tuple[tuple, tuple, Optional[float]]:
    old_shape: tuple = () if old is None else tuple(old.shape)
    new_shape: tuple = () if new is None else tuple(new.shape)
    if old is None or new is None or old.shape != new.shape:
        return old_shape, new_shape, None
    if not old.numel():
        return old_shape, new_shape, 0.0
    if old.dtype in (torch.bool, torch.uint8):  # masks, and with a negative mask_thr_binary their levels
        return old_shape, new_shape, (old != new).double().mean().item()
    # Values that are both infinite, or both not a number, count as equal.
    difference = (old.double() - new.double()).abs()
    same = (old == new) | (old.isnan() & new.isnan()) if old.is_floating_point() else old == new
    return old_shape, new_shape, difference.masked_fill(same, 0).max().item()


def _shape(shape: tuple) -> str:
    return ' x '.join(map(str, shape)) or '-'


@torch.no_grad()
def _time_prediction(model: nn.Module, inputs: dict) -> float:
    start = time.perf_counter()
    _predict(model, inputs)
    return time.perf_counter() - start


@torch.no_grad()
def _count_macs(model: nn.Module, inputs: dict) -> Optional[int]:
    with count_flops() as read_counter:
        if read_counter is None:  # torch 2.0
            return None
        _predict(model, inputs)
        return read_counter() // 2
