# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Detectors outside PyTorch: graphs for ONNX, and what runs them with numpy and onnxruntime."""

from .export import ExportError, export_detector
from .verify import verify

__all__ = ['ExportError', 'export_detector', 'verify']
