# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Pooling, products and convolutions: faster than those of mmcv and torch, with the same results up to rounding.

One gradient differs: :func:`maximum` does not divide it among equal tensors.
"""

from .level_maximum import maximum
from .onednn_linear import linear
from .roi_align import multi_level_roi_align
from .roi_align_rotated import multi_level_roi_align_rotated
from .roi_levels import fpn_levels
from .winograd import conv3x3, direct_convolutions

__all__ = [
    'conv3x3',
    'direct_convolutions',
    'fpn_levels',
    'linear',
    'maximum',
    'multi_level_roi_align',
    'multi_level_roi_align_rotated',
]
