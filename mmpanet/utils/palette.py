# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The colors of all plots and pictures. They can be told apart with any color vision (Okabe and Ito)."""

from itertools import product
from typing import Any, Dict, List, Sequence, Tuple, Union

BLUE, LIGHT_BLUE, GREEN, YELLOW = '#0072B2', '#56B4E9', '#009E73', '#F0E442'
ORANGE, VERMILION, PINK, GRAY = '#E69F00', '#D55E00', '#CC79A7', '#999999'
LIGHT_GRAY, BLACK, WHITE = '#DDDDDD', '#000000', '#FFFFFF'
# Series of a plot, such as models.
COLORS = (BLUE, VERMILION, GREEN, PINK, ORANGE, LIGHT_BLUE, GRAY, BLACK)
# Levels of a pyramid, from fine to coarse.
LEVEL_COLORS = (BLUE, GREEN, ORANGE, VERMILION, PINK, LIGHT_BLUE, YELLOW, GRAY, BLACK)
DASHES = ('-', '--', ':')


def line_styles(count: int) -> List[Dict[str, str]]:
    """Color and dashes, as matplotlib takes them, for each of so many lines. The first 24 differ from each other."""
    styles = [dict(color=color, linestyle=dashes) for dashes, color in product(DASHES, COLORS)]
    return [styles[index % len(styles)] for index in range(count)]


def level_colors(count: int) -> List[str]:
    """The color of each of so many levels, fine to coarse. The first 9 differ from each other."""
    return [LEVEL_COLORS[index % len(LEVEL_COLORS)] for index in range(count)]


def give_enough_colors(dataset_meta: Union[Dict[str, Any], Sequence[Dict[str, Any]], None]) -> None:
    """Leave the colors of the classes to MMDetection where a dataset has fewer than classes.

    ``CocoDataset`` brings those of COCO's 80 classes, also for classes of the user. MMDetection would stop at the 81st.

    Args:
        dataset_meta: Of one dataset, or of each of several. A list is changed in place. A tuple is one color for all.
    """
    for meta in [dataset_meta] if isinstance(dataset_meta, dict) else dataset_meta or ():
        palette = meta.get('palette')
        if isinstance(palette, list) and len(palette) < len(meta.get('classes') or ()):
            meta['palette'] = 'random'


def to_bgr(color: str) -> Tuple[int, int, int]:
    """A color as OpenCV takes it."""
    red, green, blue = bytes.fromhex(color[1:])
    return blue, green, red
