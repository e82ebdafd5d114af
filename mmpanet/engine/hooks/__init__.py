# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .evaluate_first_hook import EvaluateFirstHook
from .level_distribution_hook import LevelDistributionHook
from .save_then_remove_hook import SaveThenRemoveHook

__all__ = ['EvaluateFirstHook', 'LevelDistributionHook', 'SaveThenRemoveHook']
