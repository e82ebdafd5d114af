# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Outlines of the classes of ``shapes``, and the pixels that an outline covers."""

import math
from typing import Callable, Dict, List, Tuple

import cv2
import numpy as np

Contours = List[np.ndarray]  # each (V, 2) of x, y; those after the first are holes
SAMPLES = 4  # per side of a pixel
FRACTION_BITS = 4  # of the fixed-point coordinates that OpenCV fills


def _ellipse(rng: np.random.RandomState) -> Contours:
    return [_squeeze(_arc(0, 2 * math.pi), rng.uniform(0.5, 1))]


def _rectangle(rng: np.random.RandomState) -> Contours:
    return [_squeeze(_box(), rng.uniform(0.4, 1))]


def _triangle(rng: np.random.RandomState) -> Contours:
    angles = np.arange(3) * 2 * math.pi / 3 + rng.uniform(-0.35, 0.35, 3)
    return [_on_circle(angles)]


def _star(rng: np.random.RandomState) -> Contours:
    angles = np.arange(10) * math.pi / 5
    radii = np.where(np.arange(10) % 2, rng.uniform(0.36, 0.5), 1)
    return [_on_circle(angles) * radii[:, None]]


def _cross(rng: np.random.RandomState) -> Contours:
    arm = rng.uniform(0.22, 0.38)
    corner = np.array([[1, arm], [arm, arm], [arm, 1]])
    mirror = corner[::-1]
    return [np.concatenate([corner, mirror * (-1, 1), corner * (-1, -1), mirror * (1, -1)])]


def _ring(rng: np.random.RandomState) -> Contours:
    squeeze = rng.uniform(0.75, 1)
    outer = _squeeze(_arc(0, 2 * math.pi), squeeze)
    return [outer, outer * rng.uniform(0.45, 0.7)]


def _frame(rng: np.random.RandomState) -> Contours:
    outer = _squeeze(_box(), rng.uniform(0.6, 1))
    return [outer, outer * rng.uniform(0.45, 0.7)]


def _crescent(rng: np.random.RandomState) -> Contours:
    # The unit disc without another one, whose center lies `shift` to the right.
    shift = rng.uniform(0.55, 0.9)
    horn = math.acos(shift / 2)
    outer = _arc(horn, 2 * math.pi - horn)
    inner = _arc(math.pi + horn, math.pi - horn) + (shift, 0)
    return [np.concatenate([outer, inner[1:-1]])]


SHAPES: Dict[str, Callable[[np.random.RandomState], Contours]] = dict(
    ellipse=_ellipse,
    rectangle=_rectangle,
    triangle=_triangle,
    star=_star,
    cross=_cross,
    ring=_ring,
    frame=_frame,
    crescent=_crescent,
)


def _on_circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _arc(start: float, stop: float, num: int = 64) -> np.ndarray:
    return _on_circle(np.linspace(start, stop, num))


def _box() -> np.ndarray:
    return np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=float)


def _squeeze(contour: np.ndarray, ratio: float) -> np.ndarray:
    return contour * (1, ratio)


def rasterize(contours: Contours, shape: Tuple[int, int]) -> Tuple[Tuple[slice, slice], np.ndarray]:
    """Find how much of each pixel a polygon covers. It may have holes.

    Args:
        contours (list[np.ndarray]): Outline and holes, each (V, 2).
        shape (tuple[int]): Height and width of the image.

    Returns:
        tuple: The window of the image that holds the polygon, as slices of rows and columns; and the covered part of
        each pixel of the window, uint8 from 0 to 255.
    """
    size = np.array(shape[::-1])
    low = np.clip(np.floor(contours[0].min(axis=0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(contours[0].max(axis=0)), low + 1, size).astype(int)
    width, height = (high - low).tolist()
    # Pixel (0, 0) covers [0, 1) x [0, 1): its first sample lies at 1/8.
    points = [np.rint(((contour - low) * SAMPLES - 0.5) * 2**FRACTION_BITS).astype(np.int32) for contour in contours]
    samples = np.zeros((height * SAMPLES, width * SAMPLES), np.uint8)
    cv2.fillPoly(samples, points, 1, shift=FRACTION_BITS)
    count = samples.reshape(height, SAMPLES, width, SAMPLES).sum(axis=(1, 3), dtype=np.int32)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    return window, (count * 255 // SAMPLES**2).astype(np.uint8)


def enclosed_area(contours: Contours) -> float:
    """Area inside the first contour, without that inside the others."""
    areas = []
    for contour in contours:
        x, y = contour.T
        areas.append(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
    return areas[0] - sum(areas[1:])
