# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Exported graphs in eight bits."""

import re
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import numpy as np
from mmengine.config import Config

from mmpanet.apis.image_loader import ImageLoader
from mmpanet.utils.errors import ExportError
from mmpanet.utils.files import atomic_write
from .fcs_as_convs import fcs_as_convs
from .runtimes import as_input, check_inputs

QUANTIZED_OPERATORS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
# Parts of mmdet's and mmpanet's heads whose outputs are scores, deltas or masks: they stay in float.
OUTPUT_LAYERS = (
    'rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg', 'conv_logits', 'mask_fc', 'retina_cls', 'retina_reg', 'conv_cls',
    'conv_reg', 'conv_centerness', 'atss_cls', 'atss_reg', 'atss_centerness',
)  # fmt: skip


def quantize_graph(
    graph: Union[str, Path],
    target: Union[str, Path],
    cfg: Config,
    images: Sequence[Union[str, Path]],
    float_parts: Sequence[str] = (),
) -> List[str]:
    """Write a graph whose convs and fcs compute in eight bits (static QDQ of onnxruntime).

    Weights have seven bits, and one scale per output channel. Activations have one scale per tensor, from the smallest
    and the largest value on the images. The output of a layer is rounded once, behind its ReLU, so that no step of its
    scale is spent on values that the ReLU removes. RoIAlign, the output layers and all that follows them stay in float.

    Fcs are written as 1 x 1 convs (:func:`.fcs_as_convs.fcs_as_convs`). Convs that the graph computes by Winograd's
    algorithm stay in float, because eight bits are too few for transformed grids.

    Args:
        graph: ``end2end.onnx``.
        target: The graph to write.
        cfg: The config of the detector, for its test pipeline.
        images: Image files, as different from each other as the images to come.
        float_parts: Parts that stay in float too, by the names of their nodes: 'backbone', 'backbone/layer1', 'masks'.

    Returns:
        The names of the nodes that compute in eight bits.

    Raises:
        ExportError: If onnxruntime is not installed, if there is no image, if the graph has no such part or no layer
            but in such parts, or if it takes sizes.
    """
    try:
        import onnx
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ExportError(f'{error.name} is not installed: pip install onnx onnxruntime') from error
    if not images:
        raise ExportError('there is no image to calibrate with')

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, inputs: Iterator[Dict[str, np.ndarray]]) -> None:
            self.inputs = inputs

        def get_next(self) -> Optional[Dict[str, np.ndarray]]:
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as folder, atomic_write(target) as file:
        prepared = str(Path(folder, 'prepared.onnx'))
        quant_pre_process(str(graph), prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        check_inputs([one.name for one in model.graph.input])
        image = model.graph.input[0]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
        nodes = _without(list(_quantizable(model.graph)), float_parts)
        if not nodes:  # onnxruntime would quantize all
            raise ExportError(f'--float {" ".join(float_parts)}: no layer would be left to compute in eight bits')
        fcs_as_convs(model.graph, nodes)
        onnx.save(model, prepared)
        quantization.quantize_static(
            prepared,
            str(file),
            Reader(_calibration_inputs(cfg, images, image.name, dtype)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Weights have seven bits: on a processor without VNNI a sum of two products of eight bits can overflow its
            # sixteen bits, and the graph may run on another processor than this one. The eighth bit brings no AP.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=[*nodes, *_relus_behind(model.graph, nodes)],
            # Softmax is not among the nodes, but onnxruntime before 1.20 needs its range.
            op_types_to_quantize=[*QUANTIZED_OPERATORS, 'Relu', 'Softmax'],
        )
    return nodes


def _relus_behind(graph: Any, names: Sequence[str]) -> List[str]:
    """The ReLUs that read an output of the nodes."""
    outputs = {output for node in graph.node if node.name in names for output in node.output}
    return [node.name for node in graph.node if node.op_type == 'Relu' and node.input[0] in outputs]


def _is_output(node: str) -> bool:
    """Whether a node belongs to an output layer. The second use of a layer has a number behind its name."""
    return any(re.sub(r'_\d+$', '', part) in OUTPUT_LAYERS for part in node.split('/'))


def _quantizable(graph: Any) -> Iterator[str]:
    axes = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        weight_axes = [axes[name] for name in node.input[1:2] if name in axes]
        # The weights of an fc are a matrix. A product with more is WinogradConv's.
        is_layer = weight_axes == [2] if node.op_type == 'MatMul' else bool(weight_axes)
        if node.op_type in QUANTIZED_OPERATORS and is_layer and not _is_output(node.name):
            yield node.name


def _without(nodes: List[str], parts: Sequence[str]) -> List[str]:
    """The nodes that belong to none of the parts."""
    prefixes = tuple(f'/{part.strip("/")}/' for part in parts)
    for part, prefix in zip(parts, prefixes):
        if not any(node.startswith(prefix) for node in nodes):
            first = sorted({node.split('/')[1] for node in nodes})
            raise ExportError(f'--float {part}: no layer in eight bits has this name; the parts are {first}')
    return [node for node in nodes if not node.startswith(prefixes)]


def _calibration_inputs(
    cfg: Config, images: Sequence[Union[str, Path]], name: str, dtype: np.dtype
) -> Iterator[Dict[str, np.ndarray]]:
    """One image after the other, as the test pipeline makes them."""
    load_image = ImageLoader(cfg)
    for number, path in enumerate(images):
        _, data = load_image(path, number)
        yield {name: as_input(data['inputs'].numpy()[None], dtype)}
