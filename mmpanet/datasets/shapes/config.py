# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The settings of a ``shapes`` dataset."""

from dataclasses import dataclass
from typing import Tuple

from mmpanet.utils.errors import ConfigError
from .outlines import SHAPES


@dataclass(frozen=True)
class ShapesConfig:
    """The settings of a ``shapes`` dataset.

    Args:
        num_train (int): Number of images in the train split. Defaults to 1800.
        num_val (int): Number of images in the val split. Defaults to 100.
        image_size (tuple[int]): Height and width in pixels. Defaults to (192, 192).
        classes (tuple[str]): Some of :data:`SHAPES`, in the order of their ids. Defaults to four of them.
        num_objects (tuple[int]): Fewest and most objects that are drawn for an image. Those that others hide are
            dropped afterwards. Defaults to (2, 7).
        area (tuple[float]): Smallest and largest area of a whole object in pixels. Areas are drawn log-uniformly.
            Defaults to (60, 9000).
        min_visible (float): Smallest visible fraction of an object. An object of which less is visible is dropped.
            Defaults to 0.5.
        empty_fraction (float): Fraction of the images without objects. Defaults to 0.05.
        seed (int): Seed of all random numbers. Defaults to 0.

    Raises:
        ConfigError: If a setting has a value that is not allowed.
    """

    num_train: int = 1800
    num_val: int = 100
    image_size: Tuple[int, int] = (192, 192)
    classes: Tuple[str, ...] = ('ellipse', 'triangle', 'star', 'ring')
    num_objects: Tuple[int, int] = (2, 7)
    area: Tuple[float, float] = (60, 9000)
    min_visible: float = 0.5
    empty_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ('image_size', 'classes', 'num_objects'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        # 60 and 60.0 are the same recipe
        object.__setattr__(self, 'area', tuple(map(float, self.area)))
        for name in ('min_visible', 'empty_fraction'):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ('num_train', 'num_val'):
            self._check(name, getattr(self, name) >= 1, '1 or more')
        self._check(
            'image_size',
            len(self.image_size) == 2 and all(32 <= side <= 4096 for side in self.image_size),
            'a height and a width of 32 to 4096',
        )
        self._check(
            'classes',
            bool(self.classes) and set(self.classes) <= set(SHAPES) and len(set(self.classes)) == len(self.classes),
            f'one or more of {", ".join(SHAPES)}, each once',
        )
        self._check(
            'num_objects',
            len(self.num_objects) == 2 and 1 <= self.num_objects[0] <= self.num_objects[1],
            'two numbers, 1 <= fewest <= most',
        )
        height, width = self.image_size
        self._check(
            'area',
            len(self.area) == 2 and 16 <= self.area[0] <= self.area[1] <= height * width,
            f'two numbers, 16 <= smallest <= largest <= height * width = {height * width}',
        )
        self._check('min_visible', 0 < self.min_visible <= 1, 'above 0, up to 1')
        self._check('empty_fraction', 0 <= self.empty_fraction <= 1, '0 to 1')
        self._check('seed', 0 <= self.seed < 2**32, '0 to 2**32 - 1')

    def _check(self, name: str, is_allowed: bool, allowed: str) -> None:
        if not is_allowed:
            raise ConfigError(f'{name} is {getattr(self, name)!r}, it takes {allowed}')
