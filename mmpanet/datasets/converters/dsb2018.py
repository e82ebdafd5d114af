# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Data Science Bowl 2018 (nuclei, BBBC038) to COCO format.

The competition's layout is one folder a sample, one mask an instance::

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
from mmpanet.utils.images import check_loadable, decode_image, read_image_info
from .conversion import Converted, Report, Sample, check_conversion, convert_samples, fingerprint

GENERATOR = 'mmpanet.datasets.converters.dsb2018'
VERSION = 1
CLASSES = ('nucleus',)


def _read_png(path: Path, source: Path) -> np.ndarray:
    return decode_image(path.read_bytes(), cv2.IMREAD_UNCHANGED, str(path.relative_to(source)))


def _pngs(folder: Path, source: Path) -> List[Path]:
    if not folder.is_dir():
        raise DataError(f'{folder.relative_to(source)}: no such folder')
    paths = sorted(folder.glob('*.png'))
    if not paths:
        raise DataError(f'{folder.relative_to(source)}: holds no PNG')
    return paths


def read_sample(source: Path, name: str, report: Report) -> Sample:
    """Read one sample and check it.

    Args:
        source (Path): The folder of all samples.
        name (str): The folder of this one.
        report (Callable): Called with the description of an empty mask,
            without which the sample is as good as before. May raise.

    Returns:
        Sample: The image as a PNG, of one channel if it is grey and of three
        else, and its instances.

    Raises:
        DataError: Where no right ground truth can be had of it.
    """
    image_paths = _pngs(source / name / 'images', source)
    if len(image_paths) > 1:
        raise DataError(f'{name}/images: holds {len(image_paths)} images, not one')
    shown = str(image_paths[0].relative_to(source))
    image = _read_png(image_paths[0], source)
    check_loadable(read_image_info(image_paths[0], shown), shown)
    if image.ndim == 3:
        image = image[..., :3]  # leave out alpha
        if (image == image[..., :1]).all():
            image = image[..., 0]

    instances = []
    owner = np.zeros(image.shape[:2], np.int32)  # 1 + index of the mask there
    mask_paths = _pngs(source / name / 'masks', source)
    for index, path in enumerate(mask_paths):
        mask = _read_png(path, source)
        if mask.shape[:2] != image.shape[:2]:
            raise DataError(
                f'{path.relative_to(source)}: {mask.shape[0]} x '
                f'{mask.shape[1]}, its image is {image.shape[0]} x '
                f'{image.shape[1]}'
            )
        if mask.ndim == 3:
            mask = mask[..., :3].max(axis=2)
        inside = np.asarray(mask > 0)
        if not inside.any():
            report(f'{path.relative_to(source)}: empty mask')
            continue
        if owner[inside].any():
            other = mask_paths[owner[inside].max() - 1]
            raise DataError(f'{path.relative_to(source)}: overlaps {other.name}')
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
    """Convert a folder of samples, whole or not at all.

    Args:
        source (str | Path): Folder that holds one folder a sample.
        out_dir (str | Path): Where the dataset shall lie.
        val_fraction (float): Part of the samples that go to ``val``.
            Defaults to 0.2.
        seed (int): Another seed, another split. Defaults to 0.
        on_error (str): What to do about a bad file. 'skip' leaves out an
            empty mask, and for any other fault the whole sample, whose
            ground truth could not be trusted; 'raise' stops at the first.
            Defaults to 'skip'.
        force (bool): Replace a dataset made of other files or with other
            arguments. Defaults to False.

    Returns:
        Converted | None: None if the dataset was there already.
    """
    source = Path(source)
    check_conversion(source, val_fraction, on_error)
    names = sorted(path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith('.'))
    if not names:
        raise DataError(f'source {str(source)!r} holds no samples')

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        source=fingerprint(source, source.glob('*/*/*.png')),
        val_fraction=val_fraction,
        seed=seed,
        on_error=on_error,
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
