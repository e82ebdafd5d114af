# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What runs an exported graph."""

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Sequence, Union

import numpy as np

from mmpanet.utils.environment import instruction_sets, warning_of_bfloat16
from mmpanet.utils.errors import ExportError

Graph = Callable[[np.ndarray], List[np.ndarray]]


def open_graph(path: Union[str, Path], runtime: str = 'onnxruntime', threads: int = 0) -> Graph:
    """A function from an image batch (B, C, H, W) to the outputs of the graph, on the CPU.

    Args:
        path: The graph.
        runtime: A key of :data:`RUNTIMES`.
        threads: CPU threads; 0 leaves the choice to the runtime.

    Raises:
        ExportError: If the runtime is unknown or not installed, if the processor has no instructions for it, or if the
            file is not there or is no graph that it can run. The function raises it for an image whose type the graph
            does not take.
    """
    if runtime not in RUNTIMES:
        raise ExportError(f'runtime={runtime!r} must be one of {tuple(RUNTIMES)}')
    if not Path(path).is_file():
        raise ExportError(f'{path}: no such file')
    module_name, name, open_ = RUNTIMES[runtime]
    if runtime == OPENVINO_BF16 and warning_of_bfloat16('cpu'):
        raise ExportError(
            f'runtime={runtime!r}: this processor ({", ".join(instruction_sets())}) has no instructions for bfloat16'
        )
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ExportError(f'{name} is not installed: pip install {module_name}') from error
    try:
        return open_(module, str(path), threads)
    except Exception as error:  # each runtime has its own errors
        raise ExportError(f'{path}: {name} cannot run this file: {str(error).strip()}') from error


def as_input(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An image batch in the type that a graph takes.

    Raises:
        ExportError: If values would be lost.
    """
    if image.dtype == dtype:
        return image
    if not np.can_cast(image.dtype, dtype):
        raise ExportError(
            f'the graph takes images of {dtype}, and the test pipeline gives {image.dtype}: '
            f'export it with --input-type {image.dtype}'
        )
    return image.astype(dtype)


def check_inputs(names: Sequence[str]) -> None:
    """Raise an ExportError for a graph that takes more than images."""
    if list(names) != ['input']:
        raise ExportError(f"its inputs are {list(names)}, and must be ['input']: export it without --sizes")


def _open_onnxruntime(onnxruntime: Any, path: str, threads: int) -> Graph:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    check_inputs([one.name for one in session.get_inputs()])
    kind, types = session.get_inputs()[0].type, {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32'}
    if kind not in types:
        raise ValueError(f'its input is a {kind}, and must be of uint8 or float32')
    dtype = np.dtype(types[kind])
    return lambda image: session.run(None, {'input': as_input(image, dtype)})


def _open_openvino(openvino: Any, path: str, threads: int, precision: str = 'f32') -> Graph:
    core = openvino.Core()
    options = {'INFERENCE_NUM_THREADS': threads} if threads else {}
    compiled = core.compile_model(core.read_model(path), 'CPU', {'INFERENCE_PRECISION_HINT': precision, **options})
    check_inputs([one.get_any_name() for one in compiled.inputs])
    dtype = np.dtype(compiled.input(0).get_element_type().to_dtype())
    return lambda image: [np.asarray(output) for output in compiled([as_input(image, dtype)]).values()]


class _Runtime(NamedTuple):
    module: str
    name: str  # in messages
    open: Callable[[Any, str, int], Graph]


OPENVINO_BF16 = 'openvino-bf16'
# By the name that a user gives. OpenVINO can compute a float32 graph in bfloat16 where the processor has it.
RUNTIMES = {
    'onnxruntime': _Runtime('onnxruntime', 'onnxruntime', _open_onnxruntime),
    'openvino': _Runtime('openvino', 'OpenVINO', _open_openvino),
    OPENVINO_BF16: _Runtime('openvino', 'OpenVINO', partial(_open_openvino, precision='bf16')),
}
