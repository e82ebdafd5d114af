# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Figures of one panel or of several side by side, all in one style."""

from typing import Any, Tuple


def new_panels(columns: int, size: Tuple[float, float], grid: str = '', **settings: Any) -> Tuple[Any, Any]:
    """A figure, and its panels side by side.

    Args:
        columns: The number of panels.
        size: Width and height of the figure in inches.
        grid: The axis with grid lines: 'x', 'y' or 'both'. By default none.
        settings: Those of matplotlib's ``subplots``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout='constrained')
    panels = figure.subplots(1, columns, squeeze=False, **settings)[0]
    for panel in panels:
        panel.spines[['top', 'right']].set_visible(False)
        if grid:
            panel.grid(axis=grid, alpha=0.3)
    return figure, panels
