# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .multi_level_roi_align import multi_level_roi_align
from .onednn_linear import linear

__all__ = ['linear', 'multi_level_roi_align']
