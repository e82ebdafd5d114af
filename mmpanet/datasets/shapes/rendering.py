# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The pixels of an image: textured ground, and textured objects on it."""

import math
from typing import List, Optional, Tuple

import cv2
import numpy as np

from .config import ShapesConfig
from .objects import ShapeObject


def _noise(rng: np.random.RandomState, shape: Tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of a given grain, (H, W) float32 in [0, 1]."""
    height, width = shape
    grid = rng.randint(0, 256, (height // cell + 2, width // cell + 2))
    grid = cv2.resize(
        grid.astype(np.uint8), (grid.shape[1] * cell, grid.shape[0] * cell), interpolation=cv2.INTER_LINEAR_EXACT
    )
    top, left = rng.randint(cell), rng.randint(cell)
    return grid[top : top + height, left : left + width] / np.float32(255)


def _texture(rng: np.random.RandomState, shape: Tuple[int, int]) -> np.ndarray:
    """A random pattern, (H, W) float32 in [0, 1]."""
    height, width = shape
    kind = rng.choice(['cloud', 'stripes', 'checker', 'gradient'])
    if kind == 'cloud':
        cells = rng.choice([4, 8, 16, 32], 2, replace=False)
        pattern = sum(_noise(rng, shape, int(cell)) for cell in cells) / 2
    else:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle = rng.uniform(0, 2 * math.pi)
        u = x * np.float32(math.cos(angle)) + y * np.float32(math.sin(angle))
        v = y * np.float32(math.cos(angle)) - x * np.float32(math.sin(angle))
        period = np.float32(rng.uniform(6, 40))
        if kind == 'stripes':
            pattern = np.abs(u / period % 1 * 2 - 1)
        elif kind == 'checker':
            pattern = (u // period + v // period) % 2
        else:
            pattern = (u - u.min()) / (u.max() - u.min())
    grain = np.float32(rng.uniform(0, 0.35))
    return pattern * (1 - grain) + _noise(rng, shape, 2) * grain


def _surface(
    rng: np.random.RandomState,
    shape: Tuple[int, int],
    contrast: float,
    saturation: float = 1,
    unlike: Optional[np.ndarray] = None,
) -> np.ndarray:
    """A textured surface of two random colors, (H, W, 3) float32.

    With ``unlike``, a color, the first one differs clearly from it.
    """
    first = rng.uniform(20, 235, 3)
    while unlike is not None and np.abs(first - unlike).max() < 80:
        first = rng.uniform(20, 235, 3)
    first = first.mean() + (first - first.mean()) * saturation
    first = first.astype(np.float32)
    second = first + rng.uniform(-contrast, contrast, 3).astype(np.float32)
    pattern = _texture(rng, shape)[..., None]
    return first + (second - first) * pattern


def _ground(rng: np.random.RandomState, shape: Tuple[int, int]) -> np.ndarray:
    """The background of all objects, (H, W, 3) float32.

    A textured surface with distractors: patches of other textures, whose borders are softer than those of objects, and
    strokes, which are thinner than objects.
    """
    height, width = shape
    canvas = _surface(rng, shape, 40, saturation=0.4)
    for _ in range(rng.randint(0, 3)):
        patch = _noise(rng, shape, int(rng.choice([32, 48, 64])))
        patch = np.clip((patch - 0.5) * 4, 0, 1)[..., None]
        surface = _surface(rng, shape, 50, saturation=0.4)
        canvas = canvas + (surface - canvas) * patch * np.float32(0.5)
    strokes = np.zeros((height, width), np.uint8)
    for _ in range(rng.randint(0, 5)):
        start = rng.uniform(0, 1, 2) * (width, height)
        steps = rng.uniform(-0.12, 0.12, (rng.randint(1, 5), 2)) * max(shape)
        points = np.concatenate([start[None], start + steps.cumsum(axis=0)])
        cv2.polylines(strokes, [np.rint(points).astype(np.int32)], False, 255, thickness=int(rng.randint(1, 3)))
    color = rng.uniform(0, 255, 3).astype(np.float32)
    return np.where(strokes[..., None] > 0, color, canvas)


def render(config: ShapesConfig, objects: List[ShapeObject], rng: np.random.RandomState) -> np.ndarray:
    """Paint an image, its objects from the farthest to the nearest.

    Returns:
        np.ndarray: (H, W, 3) uint8.
    """
    shape = config.image_size
    canvas = _ground(rng, shape)
    for item in reversed(objects):
        alpha = item.coverage[..., None] / np.float32(255)
        ground = canvas[item.window]
        surface = _surface(rng, item.coverage.shape, 30, unlike=ground.mean(axis=(0, 1)))
        canvas[item.window] = ground + (surface - ground) * alpha
    canvas = canvas + rng.standard_normal(canvas.shape).astype(np.float32) * np.float32(rng.uniform(1, 8))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
