# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Data Science Bowl 2018 (nuclei, BBBC038) to COCO format.

In the layout of the competition each sample is a folder, and each instance is a mask of its own::

    <source>/
      <id>/images/<id>.png
      <id>/masks/<anything>.png ...
"""

from pathlib import Path
from typing import List, Optional, Union

import cv2
import numpy as np

from mmpanet.datasets.coco_writer import encode_instance
from mmpanet.utils.errors import DataError
from mmpanet.utils.media import is_system_file, list_files
from .conversion import (
    Converted,
    Report,
    Sample,
    check_settings,
    check_source,
    convert_samples,
    decode_whole,
    fingerprint,
)
from .mask_files import check_not_negative, read_mask

GENERATOR = 'mmpanet.datasets.converters.dsb2018'
VERSION = 2
CLASSES = ('nucleus',)


def _pngs(folder: Path, source: Path) -> List[Path]:
    if not folder.is_dir():
        raise DataError(f'{folder.relative_to(source)}: no such folder')
    paths = list_files(folder, recursive=False)
    for path in paths:
        if path.suffix.lower() != '.png':
            raise DataError(f'{path.relative_to(source)}: not a PNG; the folder takes PNG files only')
    if not paths:
        raise DataError(f'{folder.relative_to(source)}: holds no PNG')
    return paths


def read_sample(source: Path, name: str, report: Report) -> Sample:
    """Read one sample and check it.

    Args:
        source (Path): The folder of all samples.
        name (str): The name of the folder of this one.
        report (Callable): Called with the description of an empty mask, which is left out alone.

    Returns:
        Sample: The image as a PNG, with one channel if it is gray and three otherwise, and its instances.

    Raises:
        DataError: If the sample has a fault.
    """
    image_paths = _pngs(source / name / 'images', source)
    if len(image_paths) > 1:
        raise DataError(f'{name}/images: holds {len(image_paths)} images, not one')
    shown = str(image_paths[0].relative_to(source))
    image = decode_whole(image_paths[0].read_bytes(), shown, cv2.IMREAD_UNCHANGED)
    if image.ndim == 3:
        image = image[..., :3]  # without alpha
        if (image == image[..., :1]).all():
            image = image[..., 0]

    instances = []
    owner = np.zeros(image.shape[:2], np.int32)  # 1 + index of the mask that covers a pixel
    mask_paths = _pngs(source / name / 'masks', source)
    for index, path in enumerate(mask_paths):
        shown = str(path.relative_to(source))
        mask = read_mask(path, shown, (image.shape[0], image.shape[1]))
        check_not_negative(mask, (), shown)
        inside = np.asarray(mask > 0)
        if not inside.any():
            report(f'{shown}: empty mask')
            continue
        if owner[inside].any():
            other = mask_paths[owner[inside].max() - 1]
            raise DataError(f'{shown}: overlaps {other.name}')
        owner[inside] = index + 1
        instances.append(encode_instance(inside, category_id=1))
    return Sample(f'{name}.png', cv2.imencode('.png', image)[1].tobytes(), image.shape[0], image.shape[1], instances)


def convert_dsb2018(
    source: Union[str, Path],
    out_dir: Union[str, Path],
    val_fraction: float = 0.2,
    seed: int = 0,
    on_error: str = 'skip',
    force: bool = False,
) -> Optional[Converted]:
    """Convert a folder of samples.

    Args:
        source (str | Path): The folder of the samples.
        out_dir (str | Path): The folder of the dataset. It is complete or is not there.
        val_fraction (float): Fraction of the samples for ``val``. Defaults to 0.2.
        seed (int): Seed of the split. Defaults to 0.
        on_error (str): 'skip' leaves out an empty mask, and for any other fault the whole sample, and says so. 'raise'
            stops at the first fault. Defaults to 'skip'.
        force (bool): Replace a dataset made from other files or with other arguments. Defaults to False.

    Returns:
        Converted | None: None if the same dataset is there already.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
        DataError: If nothing can be converted, or at the first fault with ``on_error='raise'``.
    """
    source = Path(source)
    check_source(source, Path(out_dir), 'source')
    check_settings(val_fraction, on_error)
    names = sorted(path.name for path in source.iterdir() if path.is_dir() and not is_system_file(path.name))
    if not names:
        raise DataError(f'source {str(source)!r} holds no samples')

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        source=fingerprint(source, (path for name in names for path in list_files(source / name))),
    )
    return convert_samples(
        names,
        lambda name, report: read_sample(source, name, report),
        out_dir,
        recipe,
        CLASSES,
        dict(description='Data Science Bowl 2018', license='CC0-1.0'),
        val_fraction,
        seed,
        on_error,
        force,
    )
