# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Fully-connected layers of an ONNX graph as convs, for graphs in eight bits."""

from typing import Any, Dict, List, Optional, Sequence

import numpy as np

# A product x W^T + b, as torch exports an nn.Linear.
PRODUCT = dict(alpha=1.0, beta=1.0, transA=0, transB=1)
DEFAULTS = dict(PRODUCT, transB=0)


def fcs_as_convs(graph: Any, names: Sequence[str]) -> None:
    """Put a 1 x 1 conv over a map (1, C, N, 1), whose pixels are the N rows of the input, in place of each fc.

    The conv computes the same. In eight bits OpenVINO has a faster kernel for it than for a matrix product; in float32
    the conv is slower. N must be 1 or more, as in the graphs of ``export_detector``: onnxruntime has no conv over an
    empty map.

    Args:
        graph: A ``GraphProto``, which is changed. The convs have the names of the fcs.
        names: Names of nodes with constant weights. Those that are no ``Gemm`` with weights (out, in) stay.
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    places = numpy_helper.from_array(np.array([0, 3]), 'fcs_as_convs/places')
    added, nodes = [places], []
    last: Dict[str, str] = {}  # output of each fc, and of the ReLU behind it
    for node in graph.node:
        if node.name in names and _is_product(node):
            x, matrix, *bias = node.input
            columns, pixels, kernel = (f'{node.name}/{part}' for part in ('columns', 'pixels', 'kernel'))
            weights = numpy_helper.to_array(constants[matrix])
            added.append(numpy_helper.from_array(weights[:, :, None, None], kernel))
            nodes += [
                helper.make_node('Transpose', [x], [columns], columns, perm=[1, 0]),
                helper.make_node('Unsqueeze', [columns, places.name], [pixels], pixels),
            ]
            node = helper.make_node('Conv', [pixels, kernel, *bias], node.output, node.name, kernel_shape=[1, 1])
            last[node.output[0]] = _relu_behind(graph, node.output[0]) or node.output[0]
        nodes.append(node)
        # A conv and its ReLU are one step for a runtime, so that what makes a matrix again comes behind both.
        if node.output[0] in last.values():
            rows, squeezed, end = (f'{node.name}/{part}' for part in ('rows', 'squeezed', 'end'))
            output, node.output[0] = node.output[0], rows
            nodes += [
                helper.make_node('Squeeze', [rows, places.name], [squeezed], squeezed),
                helper.make_node('Transpose', [squeezed], [output], end, perm=[1, 0]),
            ]
    if last:
        _replace(graph, nodes, added)
        for stale in [info for info in graph.value_info if info.name in last]:  # the shape of a matrix
            graph.value_info.remove(stale)


def _is_product(node: Any) -> bool:
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return node.op_type == 'Gemm' and {**DEFAULTS, **attributes} == PRODUCT


def _relu_behind(graph: Any, tensor: str) -> Optional[str]:
    """The output of a ReLU, if it is all that reads the tensor."""
    if tensor in [output.name for output in graph.output]:
        return None
    readers = [node for node in graph.node if tensor in node.input]
    return readers[0].output[0] if [node.op_type for node in readers] == ['Relu'] else None


def _replace(graph: Any, nodes: List[Any], added: List[Any]) -> None:
    """Put the nodes in place of the graph's, add constants, and remove those that no node reads any more."""
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added])
