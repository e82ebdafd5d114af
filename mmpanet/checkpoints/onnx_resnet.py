# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A ResNet in an ONNX graph as a backbone of mmdet: reading its weights, and comparing the features of both."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from mmdet.models.backbones import ResNet
from mmdet.models.backbones.resnet import BasicBlock
from mmpanet.utils.errors import CheckpointError

BN_EPS = 1e-5  # of mmdet's ResNet


class ONNXResNet(NamedTuple):
    """What was read from a graph."""

    backbone: Dict[str, Any]  # config of mmdet's ResNet
    state_dict: Dict[str, Tensor]
    stem_input: str  # names of tensors of the graph
    stage_outputs: List[str]
    pool_pads: Tuple[int, ...]  # top, left, bottom, right of the max pooling; mmdet has 1, 1, 1, 1


class _Block(NamedTuple):
    convs: List[Any]
    shortcut: List[Any]
    output: str


def read_onnx_resnet(path: Union[str, Path]) -> ONNXResNet:
    """Read the weights of a ResNet with a 7 x 7 stem, with its batch norms folded into its convs or not.

    A folded batch norm becomes one with the weight 1, the mean 0, the variance 1 - eps and the bias of the conv.

    Args:
        path: An ONNX file. What stands before the first conv (a transpose, a normalization) is not part of a backbone.

    Returns:
        The config and the weights of the backbone, and the names that :func:`compare_features` needs.

    Raises:
        CheckpointError: If onnx is not installed, if the file is no ONNX graph, or if the graph is not such a ResNet.
    """
    graph = _Graph(path)
    stem = graph.first('Conv')
    if graph.weight(stem).shape[2:] != (7, 7):
        raise graph.error(
            f'its first conv is of size {graph.weight(stem).shape[2:]}; only a stem of (7, 7) can be read'
        )
    pool = graph.first('MaxPool')
    if [graph.attribute(pool, 'kernel_shape', []), graph.attribute(pool, 'strides', [])] != [[3, 3], [2, 2]]:
        raise graph.error('its first max pooling is not 3 x 3 with stride 2')
    blocks = _find_blocks(graph, pool.output[0])
    stages: List[List[_Block]] = []
    for block in blocks:
        if not stages or block.shortcut and stages[-1]:
            stages.append([])
        stages[-1].append(block)
    depth = _depth(graph, stages)
    first = stages[1][0].convs  # of the first block that halves its maps
    state = graph.conv_and_norm(stem, 'conv1', 'bn1')
    for s, stage in enumerate(stages):
        for b, block in enumerate(stage):
            prefix = f'layer{s + 1}.{b}.'
            for i, conv in enumerate(block.convs):
                state.update(graph.conv_and_norm(conv, f'{prefix}conv{i + 1}', f'{prefix}bn{i + 1}'))
            for conv in block.shortcut:
                state.update(graph.conv_and_norm(conv, f'{prefix}downsample.0', f'{prefix}downsample.1'))
    backbone = dict(
        type='ResNet',
        depth=depth,
        base_channels=len(graph.weight(stages[0][0].convs[0])),
        stem_channels=len(graph.weight(stem)),
        style='caffe' if len(first) == 3 and graph.attribute(first[0], 'strides', [1, 1])[0] == 2 else 'pytorch',
    )
    result = ONNXResNet(
        backbone,
        state,
        stem.input[0],
        [stage[-1].output for stage in stages],
        tuple(graph.attribute(pool, 'pads', [0, 0, 0, 0])),
    )
    build_backbone(result, graph.error)
    return result


def build_backbone(resnet: ONNXResNet, error: Any = CheckpointError) -> ResNet:
    """mmdet's ResNet with these weights, in evaluation mode."""
    model = ResNet(**{key: value for key, value in resnet.backbone.items() if key != 'type'})
    try:
        missing, unexpected = model.load_state_dict(resnet.state_dict, strict=False)
    except RuntimeError as mismatch:
        raise error(
            f"its weights do not fit mmdet's {resnet.backbone}: {str(mismatch).splitlines()[1].strip()}"
        ) from None
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise error(f"mmdet's {resnet.backbone} has {missing[:3]} beside it, and lacks {unexpected[:3]}")
    model.eval()
    return model


@torch.no_grad()
def compare_features(path: Union[str, Path], resnet: ONNXResNet) -> List[float]:
    """Run the graph in onnxruntime and the backbone in PyTorch on the same random image.

    The backbone pools with the pads of the graph here. mmdet's own pooling starts one pixel further to the top left.

    Args:
        path: The ONNX file.
        resnet: What was read from it.

    Returns:
        For each stage the largest difference of its features, as a share of their largest value.

    Raises:
        CheckpointError: If onnxruntime is not installed, if the graph takes no images of float32 or uint8 or more than
            those, if it computes in another type, or if its maps have other sizes.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise CheckpointError(f'{error.name} is not installed: pip install {error.name}') from None
    graph = onnx.load(str(path))
    names = [resnet.stem_input, *resnet.stage_outputs]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider'])
    source, *others = session.get_inputs()
    if others:
        raise CheckpointError(
            f'{path}: takes {others[0].name!r} beside the image {source.name!r}, so it is not compared'
        )
    batch, *sizes = (size if isinstance(size, int) and size > 0 else None for size in source.shape)
    shape = (batch or 1, *(size or 224 for size in sizes))
    image = np.random.default_rng(0).normal(0, 50, shape).astype(_image_type(path, source.type))
    stem_input, *expected = session.run(names, {source.name: image})
    if stem_input.dtype != np.float32:
        raise CheckpointError(f'{path}: computes in {stem_input.dtype}; only float32 can be compared')
    model = build_backbone(resnet)
    model.maxpool = _PaddedMaxPool(resnet.pool_pads)
    found = model(torch.from_numpy(stem_input))
    for a, b in zip(found, expected):
        if a.shape != b.shape:
            raise CheckpointError(
                f'{path}: a map of {b.shape} is {tuple(a.shape)} in mmdet: its stem pads or rounds in another way'
            )
    return [float(np.abs(a.numpy() - b).max() / np.abs(b).max()) for a, b in zip(found, expected)]


def _image_type(path: Union[str, Path], kind: str) -> str:
    types = {'tensor(float)': 'float32', 'tensor(uint8)': 'uint8'}
    if kind not in types:
        raise CheckpointError(f'{path}: takes {kind}; only images of float32 or uint8 can be compared')
    return types[kind]


class _PaddedMaxPool(nn.Module):
    def __init__(self, pads: Tuple[int, ...]) -> None:
        super().__init__()
        top, left, bottom, right = pads
        self.pads = (left, right, top, bottom)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, self.pads, value=float('-inf')), 3, 2)


class _Graph:
    """The nodes of an ONNX graph, and the arrays that they read."""

    def __init__(self, path: Union[str, Path]) -> None:
        try:
            import onnx
        except ImportError:
            raise CheckpointError('onnx is not installed: pip install onnx') from None
        self.path = path
        try:
            graph = onnx.load(str(path)).graph
            self.nodes = list(graph.node)
            self._load_arrays(graph, onnx.numpy_helper.to_array)
        except OSError as error:
            raise CheckpointError(f'{path}: {error.strerror or error}') from None
        except Exception as error:  # protobuf's DecodeError, and what onnx makes of damaged tensors
            raise self.error(f'it cannot be read ({type(error).__name__})') from None
        self.get_attribute = onnx.helper.get_attribute_value
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.consumers: Dict[str, List[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)

    def _load_arrays(self, graph: Any, to_array: Any) -> None:
        self.arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == 'Constant':
                values = [attribute.t for attribute in node.attribute if attribute.name == 'value']
                self.arrays.update(zip(node.output, map(to_array, values)))

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f'{self.path} is no ResNet in ONNX that can be read: {problem}')

    def first(self, kind: str) -> Any:
        for node in self.nodes:
            if node.op_type == kind:
                return node
        raise self.error(f'it has no {kind}')

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        for attribute in node.attribute:
            if attribute.name == name:
                return self.get_attribute(attribute)
        return default

    def weight(self, conv: Any) -> np.ndarray:
        return self.array(conv.input[1])

    def array(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise self.error(f'{name!r} is computed; only constant weights can be read')
        return self.arrays[name]

    def after(self, name: str, kind: str) -> Optional[Any]:
        """The node of this kind that reads a tensor, if it is the only reader."""
        readers = self.consumers.get(name, [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def conv_and_norm(self, conv: Any, conv_name: str, norm_name: str) -> Dict[str, Tensor]:
        """The weights of a conv and of its batch norm, under their names in mmdet."""
        weight = self.weight(conv)
        bias = self.array(conv.input[2]) if len(conv.input) > 2 else np.zeros(len(weight), np.float32)
        norm = self.after(conv.output[0], 'BatchNormalization')
        if norm is None:
            scale, shift = np.ones_like(bias), bias
            mean, variance = np.zeros_like(bias), np.ones_like(bias) - BN_EPS
        else:
            scale, shift, mean, variance = (self.array(name) for name in norm.input[1:5])
            mean, variance = mean - bias, variance + self.attribute(norm, 'epsilon', 1e-5) - BN_EPS
        arrays = {
            f'{conv_name}.weight': weight,
            f'{norm_name}.weight': scale,
            f'{norm_name}.bias': shift,
            f'{norm_name}.running_mean': mean,
            f'{norm_name}.running_var': variance,
        }
        return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def _find_blocks(graph: _Graph, start: str) -> List[_Block]:
    """The residual blocks behind the tensor ``start``, in their order."""
    blocks: List[_Block] = []
    while True:
        found = [node for node in graph.nodes if node.op_type == 'Add' and _paths(graph, node, start) is not None]
        if not found:
            return blocks
        main, shortcut = sorted(_paths(graph, found[0], start) or [], key=len, reverse=True)
        relu = graph.after(found[0].output[0], 'Relu')
        if relu is None or len(main) not in (2, 3) or len(shortcut) > 1:
            raise graph.error(
                f'the sum {found[0].output[0]!r} has {len(main)} and {len(shortcut)} convs in front and '
                f'{"a" if relu else "no"} ReLU behind; a residual block has 2 or 3, at most 1, and a ReLU'
            )
        blocks.append(_Block(main, shortcut, relu.output[0]))
        start = relu.output[0]


def _paths(graph: _Graph, add: Any, start: str) -> Optional[List[List[Any]]]:
    """The convs on both paths from ``start`` to a sum; None if a path does not come straight from there."""
    paths = []
    for name in add.input:
        convs: List[Any] = []
        while name != start:
            node = graph.producers.get(name)
            if node is None or node.op_type not in ('Conv', 'BatchNormalization', 'Relu'):
                return None
            if node.op_type == 'Conv':
                convs.insert(0, node)
            name = node.input[0]
        paths.append(convs)
    return paths


def _depth(graph: _Graph, stages: List[List[_Block]]) -> int:
    counts = tuple(map(len, stages))
    basic = len(stages) == 4 and len(stages[0][0].convs) == 2
    known = {depth: blocks for depth, (kind, blocks) in ResNet.arch_settings.items() if (kind is BasicBlock) == basic}
    for depth, blocks in known.items():
        if blocks == counts:
            return depth
    raise graph.error(f"its stages have {counts} blocks; mmdet's ResNet has one of {known}")
