# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .class_names import dataset_meta_of
from .inference import CheckedInferencer, load_inferencer
from .prediction import Output, find_images, find_inputs, predict

__all__ = ['CheckedInferencer', 'Output', 'dataset_meta_of', 'find_images', 'find_inputs', 'load_inferencer', 'predict']
