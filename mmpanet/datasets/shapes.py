# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The ``shapes`` dataset: a small, generated, honest test of a detector.

Flat shapes of several classes lie over and behind each other on textured
ground, among strokes and patches that are no objects. Colour and texture say
nothing about the class, so it has to be read from the outline; sizes spread
over more than two orders of magnitude of area; some classes have a hole;
masks are what is visible of an object; some images hold no object.

An image depends on the seed, its split and its number alone: from the same
arguments come the same pixels and the same bytes of JSON, whatever the number
of processes, and a longer dataset begins with the shorter one. Random numbers
come from :class:`numpy.random.RandomState`, whose streams NumPy keeps frozen,
and shapes are rasterised in fixed-point arithmetic.
"""

import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np

from .coco_writer import IMAGE_DIR, SPLITS, dataset_folder, encode_instance, write_annotations

Contours = List[np.ndarray]  # each (V, 2) of x, y; a later one is a hole

GENERATOR = 'mmpanet.datasets.shapes'
VERSION = 1  # raise it when the same arguments give other pixels


def _ellipse(rng) -> Contours:
    return [_squeeze(_arc(0, 2 * math.pi), rng.uniform(0.5, 1))]


def _rectangle(rng) -> Contours:
    return [_squeeze(_box(), rng.uniform(0.4, 1))]


def _triangle(rng) -> Contours:
    angles = np.arange(3) * 2 * math.pi / 3 + rng.uniform(-0.35, 0.35, 3)
    return [_on_circle(angles)]


def _star(rng) -> Contours:
    angles = np.arange(10) * math.pi / 5
    radii = np.where(np.arange(10) % 2, rng.uniform(0.36, 0.5), 1)
    return [_on_circle(angles) * radii[:, None]]


def _cross(rng) -> Contours:
    arm = rng.uniform(0.22, 0.38)
    corner = np.array([[1, arm], [arm, arm], [arm, 1]])
    mirror = corner[::-1]
    return [np.concatenate([corner, mirror * (-1, 1), corner * (-1, -1), mirror * (1, -1)])]


def _ring(rng) -> Contours:
    squeeze = rng.uniform(0.75, 1)
    outer = _squeeze(_arc(0, 2 * math.pi), squeeze)
    return [outer, outer * rng.uniform(0.45, 0.7)]


def _frame(rng) -> Contours:
    outer = _squeeze(_box(), rng.uniform(0.6, 1))
    return [outer, outer * rng.uniform(0.45, 0.7)]


def _crescent(rng) -> Contours:
    # The unit disc without a disc of the same size, `shift` to its right.
    shift = rng.uniform(0.55, 0.9)
    horn = math.acos(shift / 2)
    outer = _arc(horn, 2 * math.pi - horn)
    inner = _arc(math.pi + horn, math.pi - horn) + (shift, 0)
    return [np.concatenate([outer, inner[1:-1]])]


SHAPES = dict(
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


@dataclass(frozen=True)
class ShapesConfig:
    """What a ``shapes`` dataset is made of.

    Args:
        num_train (int): Images of the train split. Defaults to 1200.
        num_val (int): Images of the val split. Defaults to 100.
        image_size (tuple[int]): Height and width. Defaults to (192, 192).
        classes (tuple[str]): Some of :data:`SHAPES`, in the order of their
            ids. Defaults to four of them.
        num_objects (tuple[int]): Fewest and most objects of an image that
            holds any, before those that others hide are dropped.
            Defaults to (2, 7).
        area (tuple[float]): Smallest and largest area of a whole object in
            pixels, drawn log-uniformly. Defaults to (60, 9000).
        min_visible (float): An object of which a smaller part can be seen is
            left out. Defaults to 0.5.
        empty_fraction (float): Part of the images without objects.
            Defaults to 0.05.
        seed (int): Seed of everything random. Defaults to 0.
    """

    num_train: int = 1200
    num_val: int = 100
    image_size: Tuple[int, int] = (192, 192)
    classes: Tuple[str, ...] = ('ellipse', 'triangle', 'star', 'ring')
    num_objects: Tuple[int, int] = (2, 7)
    area: Tuple[float, float] = (60, 9000)
    min_visible: float = 0.5
    empty_fraction: float = 0.05
    seed: int = 0

    def __post_init__(self):
        for name in ('image_size', 'classes', 'num_objects'):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        # one way of writing a number, for the recipe's sake
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
            self.classes and set(self.classes) <= set(SHAPES) and len(set(self.classes)) == len(self.classes),
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

    def _check(self, name: str, fine: bool, allowed: str) -> None:
        if not fine:
            raise ValueError(f'{name} is {getattr(self, name)!r}, it takes {allowed}')


class ShapeObject(NamedTuple):
    """One object of an image.

    Attributes:
        label (int): Index into the classes.
        mask (np.ndarray): (H, W) bool, what is visible of it.
        window (tuple[slice]): Rows and columns that hold all of it.
        coverage (np.ndarray): uint8, how much of each pixel of the window
            the whole object covers, 0 to 255.
    """

    label: int
    mask: np.ndarray
    window: Tuple[slice, slice]
    coverage: np.ndarray


def rasterise(contours: Contours, shape: Tuple[int, int]) -> Tuple[Tuple[slice, slice], np.ndarray]:
    """Cover pixels with a polygon that may have holes, anti-aliased.

    Args:
        contours (list[np.ndarray]): Outline and holes, each (V, 2).
        shape (tuple[int]): Height and width of the image.

    Returns:
        tuple: The window of the image that holds the polygon, as slices of
        rows and columns, and the covered part of each of its pixels, uint8.
    """
    size = np.array(shape[::-1])
    low = np.clip(np.floor(contours[0].min(axis=0)), 0, size - 1).astype(int)
    high = np.clip(np.ceil(contours[0].max(axis=0)), low + 1, size).astype(int)
    width, height = (high - low).tolist()
    samples, shift = 4, 4  # samples a side of a pixel; fixed-point bits
    # Pixel (0, 0) covers [0, 1) x [0, 1): its first sample lies at 1/8.
    points = [np.rint(((contour - low) * samples - 0.5) * 2**shift).astype(np.int32) for contour in contours]
    fine = np.zeros((height * samples, width * samples), np.uint8)
    cv2.fillPoly(fine, points, 1, shift=shift)
    count = fine.reshape(height, samples, width, samples).sum(axis=(1, 3), dtype=np.int32)
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    return window, (count * 255 // samples**2).astype(np.uint8)


def _area(contours: Contours) -> float:
    """Area inside the first contour and outside the others."""
    areas = []
    for contour in contours:
        x, y = contour.T
        areas.append(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)
    return areas[0] - sum(areas[1:])


def place_objects(config: ShapesConfig, rng) -> List[ShapeObject]:
    """Draw the objects of an image, the nearest first.

    An object is judged against those in front of it, which all stay, so what
    remains in the image is what is annotated, and nothing else.
    """
    height, width = config.image_size
    objects: List[ShapeObject] = []
    hidden = np.zeros((height, width), bool)
    for _ in range(rng.randint(config.num_objects[0], config.num_objects[1] + 1)):
        label = rng.randint(len(config.classes))
        contours = SHAPES[config.classes[label]](rng)
        area = math.exp(rng.uniform(*np.log(config.area)))
        scale = math.sqrt(area / _area(contours))
        angle = rng.uniform(0, 2 * math.pi)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        centre = rng.uniform(0.05, 0.95, 2) * (width, height)
        window, coverage = rasterise([c @ rotation + centre for c in contours], (height, width))
        mask = np.zeros((height, width), bool)
        mask[window] = (coverage >= 128) & ~hidden[window]
        # Against the area of the whole object: the border hides, too.
        if mask.sum() < config.min_visible * area:
            continue
        hidden[window] |= coverage >= 128
        objects.append(ShapeObject(label, mask, window, coverage))
    return objects


def _noise(rng, shape: Tuple[int, int], cell: int) -> np.ndarray:
    """Smooth noise of a given grain, (H, W) float32 in [0, 1]."""
    height, width = shape
    grid = rng.randint(0, 256, (height // cell + 2, width // cell + 2))
    grid = cv2.resize(
        grid.astype(np.uint8), (grid.shape[1] * cell, grid.shape[0] * cell), interpolation=cv2.INTER_LINEAR_EXACT
    )
    top, left = rng.randint(cell), rng.randint(cell)
    return grid[top : top + height, left : left + width] / np.float32(255)


def _texture(rng, shape: Tuple[int, int]) -> np.ndarray:
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
    rng, shape: Tuple[int, int], contrast: float, saturation: float = 1, unlike: Optional[np.ndarray] = None
) -> np.ndarray:
    """A textured surface of two random colours, (H, W, 3) float32.

    With ``unlike``, a colour, they are ones that can be told from it.
    """
    first = rng.uniform(20, 235, 3)
    while unlike is not None and np.abs(first - unlike).max() < 80:
        first = rng.uniform(20, 235, 3)
    first = first.mean() + (first - first.mean()) * saturation
    first = first.astype(np.float32)
    second = first + rng.uniform(-contrast, contrast, 3).astype(np.float32)
    pattern = _texture(rng, shape)[..., None]
    return first + (second - first) * pattern


def _ground(rng, shape: Tuple[int, int]) -> np.ndarray:
    """What lies behind all objects, (H, W, 3) float32.

    A textured surface with patches of other textures, whose borders are too
    soft for an object's, and strokes, which are too thin for one.
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
    colour = rng.uniform(0, 255, 3).astype(np.float32)
    return np.where(strokes[..., None] > 0, colour, canvas)


def render(config: ShapesConfig, objects: List[ShapeObject], rng) -> np.ndarray:
    """Paint an image.

    Returns:
        np.ndarray: (H, W, 3) uint8.
    """
    shape = config.image_size
    canvas = _ground(rng, shape)
    for item in reversed(objects):  # the farthest first
        alpha = item.coverage[..., None] / np.float32(255)
        ground = canvas[item.window]
        surface = _surface(rng, item.coverage.shape, 30, unlike=ground.mean(axis=(0, 1)))
        canvas[item.window] = ground + (surface - ground) * alpha
    canvas = canvas + rng.standard_normal(canvas.shape).astype(np.float32) * np.float32(rng.uniform(1, 8))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def make_image(config: ShapesConfig, split: str, index: int) -> Tuple[np.ndarray, List[ShapeObject]]:
    """Make image ``index`` of a split.

    Returns:
        tuple: The image, (H, W, 3) uint8, and its objects, nearest first.
    """
    rng = np.random.RandomState([config.seed, SPLITS.index(split), index])
    empty = rng.uniform() < config.empty_fraction
    objects = [] if empty else place_objects(config, rng)
    return render(config, objects, rng), objects


def _write_image(folder: Path, config: ShapesConfig, split: str, index: int) -> dict:
    image, objects = make_image(config, split, index)
    file_name = f'{split}_{index:05d}.png'
    path = folder / IMAGE_DIR / file_name
    if not cv2.imwrite(str(path), image):
        raise OSError(f'cannot write {file_name}')
    return dict(
        file_name=file_name,
        height=image.shape[0],
        width=image.shape[1],
        instances=[encode_instance(item.mask, item.label + 1) for item in objects],
    )


def make_shapes(
    out_dir: Union[str, Path], config: Optional[ShapesConfig] = None, force: bool = False, workers: int = 1
) -> Optional[Dict[str, Tuple[int, int]]]:
    """Write a ``shapes`` dataset, whole or not at all.

    Args:
        out_dir (str | Path): Where it shall lie.
        config (ShapesConfig, optional): What it is made of.
        force (bool): Replace a dataset made with other arguments.
            Defaults to False.
        workers (int): Processes. Defaults to 1.

    Returns:
        dict[str, tuple[int]] | None: Images and objects of each split, None
        if the dataset was there already.
    """
    if workers < 1:
        raise ValueError(f'workers is {workers!r}, it takes 1 or more')
    config = config or ShapesConfig()
    recipe = dict(generator=GENERATOR, version=VERSION, **asdict(config))
    counts = {}
    with dataset_folder(Path(out_dir), recipe, force) as folder:
        if folder is None:
            return None
        with ProcessPoolExecutor(workers) as pool:
            for split in SPLITS:
                images = list(
                    pool.map(
                        partial(_write_image, folder, config, split),
                        range(getattr(config, f'num_{split}')),
                        chunksize=8,
                    )
                )
                info = dict(description=f'generated shapes, split {split}', recipe=recipe)
                write_annotations(folder / f'{split}.json', images, config.classes, info)
                counts[split] = (len(images), sum(len(i['instances']) for i in images))
    return counts
