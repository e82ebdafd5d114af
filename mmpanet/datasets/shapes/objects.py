# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The objects of an image: where they lie, and what is visible of them."""

import math
from typing import List, NamedTuple, Tuple

import numpy as np

from .config import ShapesConfig
from .outlines import SHAPES, enclosed_area, rasterize


class ShapeObject(NamedTuple):
    """One object of an image.

    Attributes:
        label (int): Index into the classes.
        mask (np.ndarray): (H, W) bool, its visible part.
        window (tuple[slice]): Rows and columns that hold the whole object.
        coverage (np.ndarray): uint8 from 0 to 255, how much of each pixel of the window the whole object covers.
    """

    label: int
    mask: np.ndarray
    window: Tuple[slice, slice]
    coverage: np.ndarray


def place_objects(config: ShapesConfig, rng: np.random.RandomState) -> List[ShapeObject]:
    """Draw the objects of an image, the nearest first.

    An object is dropped if too little of it is visible behind the objects in front of it, which are all kept. So every
    object in the image is annotated.
    """
    height, width = config.image_size
    objects: List[ShapeObject] = []
    hidden = np.zeros((height, width), bool)
    for _ in range(rng.randint(config.num_objects[0], config.num_objects[1] + 1)):
        label = rng.randint(len(config.classes))
        contours = SHAPES[config.classes[label]](rng)
        area = math.exp(rng.uniform(*np.log(config.area)))
        scale = math.sqrt(area / enclosed_area(contours))
        angle = rng.uniform(0, 2 * math.pi)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        center = rng.uniform(0.05, 0.95, 2) * (width, height)
        window, coverage = rasterize([c @ rotation + center for c in contours], (height, width))
        mask = np.zeros((height, width), bool)
        mask[window] = (coverage >= 128) & ~hidden[window]
        # The border of the image hides parts of an object too.
        if mask.sum() < config.min_visible * area:
            continue
        hidden[window] |= coverage >= 128
        objects.append(ShapeObject(label, mask, window, coverage))
    return objects
