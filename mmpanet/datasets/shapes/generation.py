# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Images of ``shapes`` with their objects, and whole datasets of them."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Dict, List, Optional, Tuple, Union

import cv2
import numpy as np

from mmpanet.datasets.coco_writer import IMAGE_DIR, SPLITS, dataset_folder, encode_instance, write_annotations
from mmpanet.utils.errors import ConfigError
from .config import ShapesConfig
from .objects import ShapeObject, place_objects
from .rendering import render

GENERATOR = 'mmpanet.datasets.shapes'
VERSION = 1  # increase it when the same arguments give other pixels


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
    """Write a ``shapes`` dataset. The folder is complete or is not there.

    Args:
        out_dir (str | Path): The folder of the dataset.
        config (ShapesConfig, optional): Its settings. By default those of :class:`ShapesConfig`.
        force (bool): Replace a dataset made with other settings. Defaults to False.
        workers (int): Number of processes. Defaults to 1.

    Returns:
        dict[str, tuple[int]] | None: Number of images and of objects of each split, or None if the same dataset is
        there already.

    Raises:
        ConfigError: If ``workers`` is below 1.
        DataError: If the folder holds other files, or another dataset and ``force`` is not given.
    """
    if workers < 1:
        raise ConfigError(f'workers is {workers!r}, it takes 1 or more')
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
