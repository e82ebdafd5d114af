# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .onednn_linear import linear
from .roi_align import multi_level_roi_align

__all__ = ['linear', 'multi_level_roi_align']
