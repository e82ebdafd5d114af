# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write a detector as one ONNX graph."""

import json
import re
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import torch
import torch.nn as nn
from mmengine.config import Config

from mmdet.utils import get_test_pipeline_cfg
from mmpanet.models.inclusive_boxes import InclusiveBoxRoIHead
from mmpanet.ops.winograd import SMALLEST_KERNEL
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ExportError
from mmpanet.utils.files import atomic_write, make_folder
from .end2end import EndToEnd
from .support import check_support
from .winograd_convs import can_replace

OPSET = 16  # the first with RoiAlign's coordinate_transformation_mode
GRAPH, INT8_GRAPH, SETTINGS = 'end2end.onnx', 'end2end_int8.onnx', 'detector.json'
INPUT_TYPES = {'uint8': torch.uint8, 'float32': torch.float32}
RESIZE_KEYS = ('scale', 'scale_factor', 'keep_ratio', 'interpolation', 'backend')
# torch's warning of a number that a trace holds as a constant.
NUMBER_OF_TRACE = re.compile('Converting a tensor to a (Python (integer|number|float|list)|NumPy array)')
# An image that no constant of a graph could be taken from by accident.
EXAMPLE_SIZE = (100, 164)


def export_detector(
    model: nn.Module,
    cfg: Config,
    folder: Union[str, Path],
    classes: Sequence[str] = (),
    paste_masks: bool = True,
    input_type: Optional[str] = None,
    with_sizes: bool = False,
    winograd: bool = False,
) -> List[Path]:
    """Write ``end2end.onnx`` and ``detector.json``.

    The graph holds all that stands between a resized image and its detections: normalization, padding, network,
    proposals, both NMS and the drawing of masks. It uses ONNX's own operators alone. Its names are those of mmdeploy:
    ``input`` (B, 3, H, W), or (B, 1, H, W) for a model of gray images; ``dets`` (B, k, 5), ``labels`` (B, k) and
    ``masks``. B, H, W and k are open; see :class:`.end2end.EndToEnd`. If an earlier export has left a
    graph in eight bits in the folder, it is removed.

    Args:
        model (nn.Module): A detector of mmdet, on the CPU.
        cfg (Config): Its config, for the size of test images.
        folder (str | Path): Where to write. It is made if it does not exist.
        classes (Sequence[str]): Names of the labels, for ``detector.json``.
        paste_masks (bool): Draw masks into the image, (B, k, H, W) of bool. Without it masks are (B, k, 28, 28)
            probabilities in each box.
        input_type (str, optional): 'uint8' or 'float32', the type of ``input``; from 0 to 255 in either case. Defaults
            to None: the type that the test pipeline gives.
        with_sizes (bool): Add an input ``sizes`` (B, 2), int64: height and width of each image of a padded batch.
        winograd (bool): Write the 3x3 convs of the RoI head as matrix products by Winograd's algorithm, see
            :class:`.winograd_convs.WinogradConv`.

    Returns:
        list[Path]: The two files.

    Raises:
        ConfigError: If the folder cannot be made or not be written to.
        ExportError: If the detector has a part that cannot be exported, or with ``winograd`` no conv to write so, or if
            onnx is not installed. Nothing is written then.
    """
    check_support(model)
    loads_float = any(step.get('to_float32') for step in get_test_pipeline_cfg(cfg))
    input_type = input_type or ('float32' if loads_float else 'uint8')
    if input_type not in INPUT_TYPES:
        raise ExportError(f'input_type={input_type!r} must be one of {tuple(INPUT_TYPES)}')
    if loads_float and input_type == 'uint8':
        raise ExportError(
            "input_type='uint8': test_pipeline loads images as float32 (to_float32=True), before it resizes"
        )
    if winograd and not any(map(can_replace, getattr(model, 'roi_head', nn.Identity()).modules())):
        raise ExportError(
            f'winograd=True: no RoI head of this {type(model).__name__} has a 3x3 conv (stride 1, padding 1) '
            f'whose input channels times output channels are {SMALLEST_KERNEL} or more'
        )
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ExportError('onnx is not installed: pip install onnx') from error
    settings = dict(
        classes=list(classes),
        resize=_resize(cfg),
        input_type=input_type,
        inclusive_boxes=isinstance(getattr(model, 'roi_head', None), InclusiveBoxRoIHead),
    )
    folder = Path(folder)
    make_folder(folder, 'folder')
    with atomic_write(folder / SETTINGS) as file, atomic_write(folder / GRAPH) as graph, _in_eval_mode(model):
        _export(EndToEnd(model, paste_masks, winograd).eval(), INPUT_TYPES[input_type], with_sizes, graph)
        file.write_text(json.dumps(settings, indent=2) + '\n')
        for name in (SETTINGS, INT8_GRAPH):  # of the model that was here before: no graph may be read with them
            (folder / name).unlink(missing_ok=True)
    return [folder / GRAPH, folder / SETTINGS]


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Give each module of the model its mode back: a graph shares the modules, and is written in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _resize(cfg: Config) -> Dict[str, Any]:
    """How the test pipeline resizes images, which the graph leaves to its user."""
    known = {'LoadImageFromFile', 'LoadAnnotations', 'Resize', 'PackDetInputs'}
    pipeline = get_test_pipeline_cfg(cfg)
    others = sorted({type_name(step['type']) for step in pipeline} - known)
    steps = [step for step in pipeline if type_name(step['type']) == 'Resize']
    if others or len(steps) > 1:
        raise ExportError(
            f'test_pipeline has {others or "two Resize"}: only LoadImageFromFile, one Resize, LoadAnnotations and '
            'PackDetInputs can be exported'
        )
    step = dict(steps[0]) if steps else dict(scale_factor=1.0)
    return {key: step[key] for key in RESIZE_KEYS if key in step}


def _export(detector: EndToEnd, dtype: torch.dtype, with_sizes: bool, path: Path) -> None:
    height, width = EXAMPLE_SIZE
    channels = detector.preprocessing.mean.size(1)
    if channels == 1:  # of gray images, or one number for all channels
        channels = next(part.in_channels for part in detector.backbone.modules() if isinstance(part, nn.Conv2d))
    image = torch.rand(2, channels, height, width).mul(255).to(dtype)
    names = ['dets', 'labels'] + (['masks'] if detector.masks is not None else [])
    axes = {name: {0: 'batch', 1: 'detections'} for name in names}
    axes['input'] = {0: 'batch', 2: 'height', 3: 'width'}
    if detector.masks is not None and detector.paste:
        axes['masks'].update({2: 'height', 3: 'width'})
    inputs: Dict[str, torch.Tensor] = dict(input=image)
    if with_sizes:
        inputs['sizes'] = torch.tensor([[height, width], [height - 9, width - 5]])
        axes['sizes'] = {0: 'batch'}
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter('always')
        try:
            torch.onnx.export(
                detector,
                tuple(inputs.values()),
                str(path),
                input_names=list(inputs),
                output_names=names,
                dynamic_axes=axes,
                opset_version=OPSET,
                **_LEGACY_EXPORTER,
            )
        except RuntimeError as error:  # what all errors of torch's exporter derive from
            reason = str(error).strip().partition('\n')[0]
            raise ExportError(f'a part of this model cannot be exported: {reason}') from error
    _check_size(path)
    _check_operators(path)
    _check_trace(caught)


def _check_trace(caught: Sequence[warnings.WarningMessage]) -> None:
    """Raise if a part has made a number out of a size of the example: the graph would be right for that size alone.

    torch warns of checks of shapes too, which hold for every size. Its own functions take numbers of channels, and the
    modules of this package take constants on purpose, such as the size of grids.
    """
    known = {Path(torch.__file__).parent, Path(__file__).parent}
    for one in caught:
        if NUMBER_OF_TRACE.match(str(one.message)) and known.isdisjoint(Path(one.filename).parents):
            place = '/'.join(Path(one.filename).parts[-3:])
            raise ExportError(
                f'{place}, line {one.lineno}, makes a number out of a tensor, which would be a constant of the graph: '
                'a model with this part cannot be exported'
            )


def _check_size(path: Path) -> None:
    """Raise if torch has put weights beside the graph, which it does where they take more than one file can hold."""
    if any(other != path for other in path.parent.iterdir()):
        raise ExportError('the weights of this model take more than 2 GiB, the most that one ONNX file can hold')


def _check_operators(path: Path) -> None:
    """Raise if the graph has an operator that is not ONNX's own, such as one of mmcv's."""
    import onnx

    for node in onnx.load(str(path), load_external_data=False).graph.node:
        if node.domain not in ('', 'ai.onnx'):
            part = '.'.join(name for name in node.name.split('/')[1:-1]) or 'a part of the model'
            raise ExportError(
                f"{part} needs the operator {node.domain}::{node.op_type}: only ONNX's own operators can be exported"
            )


# torch 2.5 has an exporter of another kind and takes this argument; before, there is one exporter.
_LEGACY_EXPORTER = {'dynamo': False} if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
