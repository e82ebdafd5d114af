# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .level_shares import LevelDistribution, LevelRecorder, RoILevels, level_shares
from .pictures import draw_distribution, draw_image

__all__ = ['LevelDistribution', 'LevelRecorder', 'RoILevels', 'draw_distribution', 'draw_image', 'level_shares']
