# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The colors of all plots and pictures."""

# Okabe and Ito's: people with any color vision can tell them apart.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#999999', '#000000')
# Levels of a pyramid, from fine to coarse.
LEVEL_COLORS = ('#0072B2', '#009E73', '#E69F00', '#D55E00', '#CC79A7', '#56B4E9')
