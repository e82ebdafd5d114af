# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Layers that the neck and several heads share."""

from .fast_conv import FastConv2d, fast_conv_cfg
from .fc_module import FastLinear, FCModule
from .levelwise_fusion import GATE_PARAMETERS, LevelwiseFusion
from .map_fusion import ConcatFusion, SumFusion, WeightedFusion
from .pooling_backend import check_backend, for_mmcv, uses_embedding_bag

__all__ = [
    'ConcatFusion',
    'FCModule',
    'GATE_PARAMETERS',
    'LevelwiseFusion',
    'FastConv2d',
    'FastLinear',
    'SumFusion',
    'WeightedFusion',
    'check_backend',
    'fast_conv_cfg',
    'for_mmcv',
    'uses_embedding_bag',
]
