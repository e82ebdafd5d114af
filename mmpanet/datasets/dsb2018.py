# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Data Science Bowl 2018 (nuclei, BBBC038) to COCO format.

The competition's layout is one folder a sample, one mask an instance::

    <source>/
      <id>/images/<id>.png
      <id>/masks/<anything>.png ...
"""
import hashlib
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np

from .coco_writer import IMAGE_DIR, SPLITS, dataset_folder, encode_instance, write_annotations

GENERATOR = 'mmpanet.datasets.dsb2018'
VERSION = 1
CLASSES = ('nucleus', )
ON_ERROR = ('skip', 'raise')


class BadSampleError(ValueError):
    """Something in the source cannot be converted; the message names it."""


class Converted(NamedTuple):
    """What :func:`convert_dsb2018` wrote.

    Attributes:
        counts (dict[str, tuple[int]]): Images and instances of each split.
        problems (list[str]): What was left out, and why.
    """
    counts: Dict[str, Tuple[int, int]]
    problems: List[str]


def split_samples(names: List[str], val_fraction: float,
                  seed: int) -> Dict[str, List[str]]:
    """Split by a hash of seed and name.

    The place of a sample in the draw does not depend on which others there
    are, so adding a few moves few.

    Returns:
        dict[str, list[str]]: Sorted names of ``train`` and ``val``.
    """
    drawn = sorted(
        names,
        key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode()).digest())
    num_val = round(len(names) * val_fraction)
    return dict(train=sorted(drawn[num_val:]), val=sorted(drawn[:num_val]))


def _read_png(path: Path, source: Path) -> np.ndarray:
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise BadSampleError(f'{path.relative_to(source)}: not readable as '
                             'an image')
    return image


def _pngs(folder: Path, source: Path) -> List[Path]:
    if not folder.is_dir():
        raise BadSampleError(f'{folder.relative_to(source)}: no such folder')
    paths = sorted(folder.glob('*.png'))
    if not paths:
        raise BadSampleError(f'{folder.relative_to(source)}: holds no PNG')
    return paths


def read_sample(source: Path, name: str,
                report: Callable[[str], None]) -> Tuple[np.ndarray, list]:
    """Read one sample and check it.

    Args:
        source (Path): The folder of all samples.
        name (str): The folder of this one.
        report (Callable): Called with the description of an empty mask,
            without which the sample is as good as before. May raise.

    Returns:
        tuple: The image, (H, W) if it is grey and (H, W, 3) else, and its
        instances as COCO annotations.

    Raises:
        BadSampleError: Where no right ground truth can be had of it.
    """
    image_paths = _pngs(source / name / 'images', source)
    if len(image_paths) > 1:
        raise BadSampleError(
            f'{name}/images: holds {len(image_paths)} images, not one')
    image = _read_png(image_paths[0], source)
    if image.dtype != np.uint8:
        raise BadSampleError(f'{image_paths[0].relative_to(source)}: holds '
                             f'{image.dtype} pixels, not uint8')
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
            raise BadSampleError(
                f'{path.relative_to(source)}: {mask.shape[0]} x '
                f'{mask.shape[1]}, its image is {image.shape[0]} x '
                f'{image.shape[1]}')
        if mask.ndim == 3:
            mask = mask[..., :3].any(axis=2)
        mask = mask > 0
        if not mask.any():
            report(f'{path.relative_to(source)}: empty mask')
            continue
        if owner[mask].any():
            other = mask_paths[owner[mask].max() - 1]
            raise BadSampleError(
                f'{path.relative_to(source)}: overlaps {other.name}')
        owner[mask] = index + 1
        instances.append(encode_instance(mask, category_id=1))
    return image, instances


def _fingerprint(source: Path) -> str:
    """Changes with the names and the sizes of the files of the source."""
    digest = hashlib.sha256()
    for path in sorted(source.glob('*/*/*.png')):
        digest.update(
            f'{path.relative_to(source)}:{path.stat().st_size}\n'.encode())
    return digest.hexdigest()[:16]


def convert_dsb2018(source: Union[str, Path],
                    out_dir: Union[str, Path],
                    val_fraction: float = 0.2,
                    seed: int = 0,
                    on_error: str = 'skip',
                    force: bool = False) -> Optional[Converted]:
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
    if not source.is_dir():
        raise FileNotFoundError(f'source {str(source)!r} is not a folder')
    if not 0 < val_fraction < 1:
        raise ValueError(
            f'val_fraction is {val_fraction!r}, it takes 0 to 1, exclusive')
    if on_error not in ON_ERROR:
        raise ValueError(
            f'on_error is {on_error!r}, it takes {" or ".join(ON_ERROR)}')
    names = sorted(path.name for path in source.iterdir()
                   if path.is_dir() and not path.name.startswith('.'))
    if not names:
        raise FileNotFoundError(f'source {str(source)!r} holds no samples')

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        source=_fingerprint(source),
        val_fraction=val_fraction,
        seed=seed,
        on_error=on_error)
    counts: Dict[str, Tuple[int, int]] = {}
    problems: List[str] = []

    def report(problem: str) -> None:
        if on_error == 'raise':
            raise BadSampleError(problem)
        problems.append(problem)

    with dataset_folder(Path(out_dir), recipe, force) as folder:
        if folder is None:
            return None
        samples = {}
        for name in names:
            try:
                image, instances = read_sample(source, name, report)
            except BadSampleError as error:
                report(str(error))
                continue
            file_name = f'{name}.png'
            path = folder / IMAGE_DIR / file_name
            if not cv2.imwrite(str(path), image):
                raise OSError(f'cannot write {file_name}')
            samples[name] = dict(
                file_name=file_name,
                height=image.shape[0],
                width=image.shape[1],
                instances=instances)
        splits = split_samples(list(samples), val_fraction, seed)
        for split in SPLITS:
            if not splits[split]:
                raise ValueError(
                    f'of {len(samples)} good samples none is left for '
                    f'{split}; val_fraction is {val_fraction!r}')
            images = [samples[name] for name in splits[split]]
            info = dict(
                description=f'Data Science Bowl 2018, split {split}',
                license='CC0-1.0',
                recipe=recipe)
            write_annotations(folder / f'{split}.json', images, CLASSES, info)
            counts[split] = (len(images),
                             sum(len(i['instances']) for i in images))
    return Converted(counts, problems)
