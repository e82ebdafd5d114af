# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Layers that the neck and several heads share."""

from .fc_module import FCModule
from .levelwise_fusion import GATE_PARAMETERS, LevelwiseFusion
from .map_fusion import ConcatFusion, SumFusion, WeightedFusion
from .pooling_backend import check_backend, uses_embedding_bag
from .roi_conv import RoIConv2d, roi_conv_cfg

__all__ = [
    'ConcatFusion',
    'FCModule',
    'GATE_PARAMETERS',
    'LevelwiseFusion',
    'RoIConv2d',
    'SumFusion',
    'WeightedFusion',
    'check_backend',
    'roi_conv_cfg',
    'uses_embedding_bag',
]
