# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .display import displayable
from .drawing import draw_distribution, draw_gates, draw_levels
from .level_recorder import LevelDistribution, LevelRecorder, RoILevels, gate_openings, gate_values, level_shares
from .unlabeled_visualizer import UnlabeledVisualizer

__all__ = [
    'LevelDistribution',
    'LevelRecorder',
    'RoILevels',
    'UnlabeledVisualizer',
    'displayable',
    'draw_distribution',
    'draw_gates',
    'draw_levels',
    'gate_openings',
    'gate_values',
    'level_shares',
]
