# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Fcs of a graph as convs, against the graph as it was, in onnxruntime."""

import numpy as np
import pytest

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
from onnx import TensorProto, checker, helper, numpy_helper, shape_inference
from onnxruntime import InferenceSession

from mmpanet.deploy.fcs_as_convs import fcs_as_convs

FCS = ('first', 'second', 'again', 'turned')


def model():
    """Fcs that share a weight, one behind the ReLU of another; a ReLU that is not alone; and weights (in, out)."""
    random = np.random.default_rng(0)
    constants = {
        name: random.normal(size=shape).astype(np.float32)
        for name, shape in dict(a=(4, 6), b=(4,), c=(4, 4), d=(4, 3)).items()
    }
    nodes = [
        helper.make_node('Gemm', ['x', 'a', 'b'], ['first_out'], 'first', transB=1),
        helper.make_node('Relu', ['first_out'], ['relu_out'], 'relu'),
        helper.make_node('Gemm', ['relu_out', 'c'], ['second_out'], 'second', transB=1),
        helper.make_node('Relu', ['second_out'], ['relu2_out'], 'relu2'),
        helper.make_node('Add', ['second_out', 'relu2_out'], ['sum'], 'add'),
        helper.make_node('Gemm', ['sum', 'c', 'b'], ['again_out'], 'again', transB=1),
        helper.make_node('Gemm', ['again_out', 'd'], ['turned_out'], 'turned'),
        helper.make_node('Gemm', ['sum', 'c'], ['kept_out'], 'kept', transB=1),
    ]
    matrix = [('x', ['n', 6]), ('again_out', ['n', 4]), ('turned_out', ['n', 3]), ('kept_out', ['n', 4])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in matrix]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'fcs', values[:1], values[1:], tensors)
    opset = helper.make_opsetid('', 16)
    return shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[opset], ir_version=8))


@pytest.mark.parametrize('count', [1, 5])
def test_convs_compute_what_the_fcs_do(count):
    before, after = model(), model()
    fcs_as_convs(after.graph, FCS)
    checker.check_model(after, full_check=True)
    x = np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)
    expected, found = (
        InferenceSession(one.SerializeToString(), providers=['CPUExecutionProvider']).run(None, {'x': x})
        for one in (before, after)
    )
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_relu_stays_behind_its_conv_and_other_nodes_stay():
    graph = model()
    fcs_as_convs(graph.graph, FCS)
    types = {node.name: node.op_type for node in graph.graph.node}
    assert [types[name] for name in ('first', 'second', 'again', 'turned', 'kept')] == ['Conv'] * 3 + ['Gemm'] * 2
    outputs = {node.name: node.output[0] for node in graph.graph.node}
    inputs = {node.name: node.input[0] for node in graph.graph.node}
    assert inputs['relu'] == outputs['first'] and inputs['relu2'] != outputs['second']
    # c is the weight of a fc that stays, a of none
    constants = {tensor.name for tensor in graph.graph.initializer}
    assert {'c', 'd'} <= constants and 'a' not in constants


def test_a_graph_without_fcs_stays_as_it_is():
    graph, untouched = model(), model()
    fcs_as_convs(graph.graph, ['relu'])
    assert graph == untouched
