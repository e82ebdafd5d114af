# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .evaluate_first_hook import EvaluateFirstHook
from .evaluate_missed_hook import EvaluateMissedHook
from .level_distribution_hook import LevelDistributionHook
from .save_then_remove_hook import SaveThenRemoveHook

__all__ = ['EvaluateFirstHook', 'EvaluateMissedHook', 'LevelDistributionHook', 'SaveThenRemoveHook']
