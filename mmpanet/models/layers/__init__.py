# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .fc_module import FCModule
from .levelwise_fusion import LevelwiseFusion
from .linear import linear
from .map_fusion import ConcatFusion, SumFusion, WeightedFusion
from .multi_level_pooling import multi_level_roi_align
from .pooling_backend import check_backend, uses_bag

__all__ = [
    'ConcatFusion',
    'FCModule',
    'LevelwiseFusion',
    'SumFusion',
    'WeightedFusion',
    'check_backend',
    'linear',
    'multi_level_roi_align',
    'uses_bag',
]
