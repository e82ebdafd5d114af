# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Detectors outside PyTorch: one ONNX graph from the image to boxes, labels and masks. See docs/deploy.md."""

from mmpanet.utils.errors import ExportError
from .export import export_detector
from .graph_detector import GraphDetector
from .int8 import quantize_graph
from .verify import compare_detections

__all__ = ['ExportError', 'GraphDetector', 'compare_detections', 'export_detector', 'quantize_graph']
