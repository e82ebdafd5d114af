# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checks of datasets in COCO format, before a training reads them.

MMDetection leaves out what it cannot use, without a message. An annotation file with other class names trains on
nothing. One missing class name shifts all labels after it. A polygon with an odd number of coordinates is dropped.
Other faults end a run with a bare ``KeyError``, some of them only in the evaluation after the first epoch. The checks
name each fault: the file, the entry, its value and the allowed values.

- :mod:`.config`: the datasets of a config and the heads of its model
- :mod:`.evaluators`: its evaluators, and whether they have the images of the datasets
- :mod:`.forms`: keys and values that MMDetection 3.x does not read
- :mod:`.coco`: the structure of an annotation file: images and categories
- :mod:`.objects`: the annotations in it
- :mod:`.rle`: masks
- :mod:`.images`: image files
- :mod:`.datasets`: all of them together
"""

from .config import CocoSource, check_class_order, find_datasets, order_faults, unset_faults
from .datasets import Findings, check_annotations, check_datasets
from .rle import rle_runs

__all__ = [
    'CocoSource',
    'Findings',
    'check_annotations',
    'check_class_order',
    'check_datasets',
    'find_datasets',
    'order_faults',
    'rle_runs',
    'unset_faults',
]
