# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What runs an exported graph."""

from pathlib import Path
from typing import Callable, List, Union

import numpy as np

from mmpanet.utils.errors import ExportError

Graph = Callable[[np.ndarray], List[np.ndarray]]


def open_graph(path: Union[str, Path], runtime: str = 'onnxruntime', threads: int = 0) -> Graph:
    """A function from an image batch (B, C, H, W) to the outputs of the graph, on the CPU.

    Args:
        path: The graph.
        runtime: A key of :data:`RUNTIMES`.
        threads: CPU threads; 0 leaves the choice to the runtime.

    Raises:
        ExportError: If the runtime is unknown or not installed, or if there is no such file.
    """
    if runtime not in RUNTIMES:
        raise ExportError(f'runtime={runtime!r} must be one of {tuple(RUNTIMES)}')
    if not Path(path).is_file():
        raise ExportError(f'{path}: no such file')
    return RUNTIMES[runtime](path, threads)


def _open_onnxruntime(path: Union[str, Path], threads: int) -> Graph:
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError('onnxruntime is not installed: pip install onnxruntime') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: session.run(None, {'input': image})


def _open_openvino(path: Union[str, Path], threads: int) -> Graph:
    try:
        import openvino
    except ImportError as error:
        raise ExportError('OpenVINO is not installed: pip install openvino') from error
    core = openvino.Core()
    options = {'INFERENCE_NUM_THREADS': threads} if threads else {}
    compiled = core.compile_model(core.read_model(str(path)), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32', **options})
    return lambda image: [np.asarray(output) for output in compiled([image]).values()]


RUNTIMES = {'onnxruntime': _open_onnxruntime, 'openvino': _open_openvino}
