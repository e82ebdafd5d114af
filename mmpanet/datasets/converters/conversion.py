# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the converters to COCO format share: reading images, splitting samples, writing the dataset.

A *sample* is one image with its objects. A converter reads one sample; :func:`convert_samples` does the rest.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from mmpanet.datasets.coco_writer import IMAGE_DIR, SPLITS, dataset_folder, write_annotations
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.images import check_loadable, check_whole, decode_image, read_image_info

ON_ERROR = ('skip', 'raise')

Report = Callable[[str], None]


class Sample(NamedTuple):
    """One image and its objects.

    Attributes:
        file_name (str): Path of the image in ``images/``.
        content (bytes): Content of the image file.
        height (int): Height of the image as it is loaded for training.
        width (int): Its width.
        instances (list[dict]): Annotations from :func:`.coco_writer.encode_instance` or ``encode_polygons``.
    """

    file_name: str
    content: bytes
    height: int
    width: int
    instances: List[dict]


class Converted(NamedTuple):
    """What a converter wrote.

    Attributes:
        counts (dict[str, tuple[int]]): Number of images and of objects of each split.
        problems (list[str]): What was left out because of a fault, and the fault.
        classes (tuple[str]): Names of the categories, in the order of their ids.
        notes (list[str]): What was left out on request, classes without objects, and assumptions that were made.
    """

    counts: Dict[str, Tuple[int, int]]
    problems: List[str]
    classes: Tuple[str, ...]
    notes: List[str]


def split_samples(names: List[str], val_fraction: float, seed: int) -> Dict[str, List[str]]:
    """Split samples by a hash of seed and name.

    The hash of a sample does not depend on the other samples, so that adding a few samples moves only a few.

    Returns:
        dict[str, list[str]]: Sorted names of ``train`` and ``val``.
    """
    drawn = sorted(names, key=lambda name: hashlib.sha256(f'{seed}:{name}'.encode('utf-8', 'surrogateescape')).digest())
    num_val = round(len(names) * val_fraction)
    return dict(train=sorted(drawn[num_val:]), val=sorted(drawn[:num_val]))


def decode_whole(content: bytes, name: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image that can be loaded completely, by default as MMDetection loads it.

    Args:
        content (bytes): Content of its file.
        name (str): What messages call it.
        flags (int): OpenCV's. Defaults to ``cv2.IMREAD_COLOR``.

    Raises:
        DataError: If it is damaged, has several pages, or more than 8 bits per channel.
    """
    check_loadable(read_image_info(content, name), name)
    check_whole(content, name)
    return decode_image(content, flags, name)


def fingerprint(source: Path, paths: Iterable[Path]) -> str:
    """A text that changes with the names and the contents of files.

    Args:
        source (Path): The folder that their names are relative to.
        paths (Iterable[Path]): The files, which may lie elsewhere.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        name = path.relative_to(source) if source in path.parents else path
        digest.update(os.fsencode(name) + b':' + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def check_settings(val_fraction: float, on_error: str) -> None:
    """Check the arguments that all conversions have."""
    if not 0 < val_fraction < 1:
        raise ConfigError(f'val_fraction is {val_fraction!r}, it takes 0 to 1, exclusive')
    if on_error not in ON_ERROR:
        raise ConfigError(f'on_error is {on_error!r}, it takes {" or ".join(ON_ERROR)}')


def check_source(source: Path, out_dir: Path, key: str) -> None:
    """Refuse what is no folder, and to write a dataset into the folder that it is made from, or around it.

    The next conversion would read its own files again, or ``--force`` would remove the source.

    Args:
        source (Path): The folder that is read.
        out_dir (Path): The folder of the dataset.
        key (str): The argument that names ``source``.
    """
    if not source.is_dir():
        raise DataError(f'{key} {str(source)!r} is not a folder')
    if source.resolve() in (out_dir.resolve(), *out_dir.resolve().parents):
        raise ConfigError(f'out_dir {str(out_dir)!r} lies in {key} {str(source)!r}, where its own files would be read')
    if out_dir.resolve() in source.resolve().parents:
        raise ConfigError(f'{key} {str(source)!r} lies in out_dir {str(out_dir)!r}, whose files would be replaced')


def check_classes(classes: Optional[Sequence[str]]) -> Tuple[str, ...]:
    """Class names as a tuple. Empty names and names given twice are refused."""
    names = tuple(classes or ())
    if isinstance(classes, str) or len(set(names)) != len(names) or not all(names):
        raise ConfigError(f'classes is {classes!r}, it takes a sequence of names, each once')
    return names


def convert_samples(
    names: Sequence[str],
    read_sample: Callable[[str, Report], Sample],
    out_dir: Union[str, Path],
    recipe: dict,
    classes: Sequence[str],
    info: Mapping[str, str],
    val_fraction: float,
    seed: int,
    on_error: str,
    force: bool = False,
    notes: Callable[[], List[str]] = list,
) -> Optional[Converted]:
    """Write a dataset in COCO format.

    Args:
        names (Sequence[str]): Names of the samples. The split depends on them.
        read_sample (Callable): Takes a name, and a function that is called with the description of a part that is left
            out. Returns the :class:`Sample`, or raises :class:`DataError` if the whole sample has to be left out.
        out_dir (str | Path): The folder of the dataset.
        recipe (dict): What identifies the dataset besides the settings below, see :mod:`mmpanet.datasets.coco_writer`.
        classes (Sequence[str]): Names of the categories.
        info (Mapping[str, str]): ``description`` of the dataset, and other entries of ``info``.
        val_fraction (float): Fraction of the samples for ``val``.
        seed (int): Seed of the split.
        on_error (str): 'skip' leaves out what has a fault, and says so; 'raise' stops at the first fault.
        force (bool): Replace a dataset with another recipe. Defaults to False.
        notes (Callable): Called at the end, for the :attr:`Converted.notes` of the converter.

    Returns:
        Converted | None: None if the same dataset is there already.
    """
    recipe = dict(recipe, val_fraction=val_fraction, seed=seed, on_error=on_error)
    counts: Dict[str, Tuple[int, int]] = {}
    problems: List[str] = []

    def report(problem: str) -> None:
        if on_error == 'raise':
            raise DataError(problem)
        problems.append(problem)

    with dataset_folder(Path(out_dir), recipe, force) as folder:
        if folder is None:
            return None
        images: Dict[str, dict] = {}
        written: Dict[str, str] = {}  # names of samples by the names of their images
        for name in names:
            try:
                sample = read_sample(name, report)
            except DataError as error:
                report(str(error))
                continue
            other = written.setdefault(sample.file_name.casefold(), name)
            if other != name:
                report(f'{name}: its image would be written as {sample.file_name}, as that of {other} is')
                continue
            path = folder / IMAGE_DIR / sample.file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.content)
            images[name] = dict(
                file_name=sample.file_name, height=sample.height, width=sample.width, instances=sample.instances
            )
        splits = split_samples(list(images), val_fraction, seed)
        if not images:
            raise DataError(f'none of {len(names)} samples can be converted; the first fault: {problems[0]}')
        for split in SPLITS:
            if not splits[split]:
                found = f'; the first that was left out: {problems[0]}' if problems else ''
                raise DataError(
                    f'of {len(images)} good samples none is left for {split} with val_fraction {val_fraction!r} '
                    f'(--val-fraction){found}'
                )
            of_split = [images[name] for name in splits[split]]
            write_annotations(
                folder / f'{split}.json',
                of_split,
                classes,
                dict(info, description=f'{info["description"]}, split {split}', recipe=recipe),
            )
            counts[split] = (len(of_split), sum(len(image['instances']) for image in of_split))
    per_class = Counter(instance['category_id'] for image in images.values() for instance in image['instances'])
    empty = [name for i, name in enumerate(classes, start=1) if not per_class[i]]
    lines = [f'{len(names) - len(images)} of {len(names)} samples are left out'] if len(images) < len(names) else []
    lines += [f'class {name!r} has no object in what is left' for name in empty]
    return Converted(counts, problems, tuple(classes), [*lines, *notes()])
