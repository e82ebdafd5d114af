# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mask images to COCO format.

One folder holds the images, another their masks, in one of three kinds:

=========  ==========================  ==================================================================
kind       masks                       an object is
=========  ==========================  ==================================================================
objects    ``<masks>/<image>.png``     all pixels of one value; 0 is none of them
classes    ``<masks>/<image>.png``     a connected part of all pixels of one value, which says its class
files      ``<masks>/<image>/*.png``   all pixels of one file that are not 0; with several classes, files
                                       lie in ``<masks>/<image>/<class>/``
=========  ==========================  ==================================================================

Values are numbers of 8 or 16 bits a pixel, or the indices of a palette. With ``class_divisor`` a value of an object
says its class as well, as in Cityscapes: 26003 // 1000 is class 26.
"""

from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from PIL import Image

from mmpanet.datasets.coco_writer import encode_instance
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.media import IMAGE_SUFFIXES
from .conversion import (
    Converted,
    Report,
    Sample,
    check_classes,
    check_conversion,
    convert_samples,
    fingerprint,
    loaded_size,
)

GENERATOR = 'mmpanet.datasets.converters.masks'
VERSION = 1
KINDS = ('objects', 'classes', 'files')
MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp')
LOSSY_SUFFIXES = ('.jpg', '.jpeg', '.webp')


def _read_mask(path: Path, name: str, size: Tuple[int, int]) -> np.ndarray:
    """Values of a mask, (H, W) of integers."""
    try:
        with Image.open(path) as image:  # keeps the indices of a palette, which OpenCV turns into colours
            values = np.array(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f'{name}: not readable as an image') from error
    if values.ndim == 3:
        colours = values[..., :3]  # leave out alpha
        if (colours != colours[..., :1]).any():
            raise DataError(f'{name}: holds colours; a mask holds one number a pixel, or indices of a palette')
        values = colours[..., 0]
    if values.dtype.kind not in 'bui':
        raise DataError(f'{name}: holds {values.dtype} values, not integers')
    if values.shape != size:
        raise DataError(f'{name}: {values.shape[0]} x {values.shape[1]}, its image is {size[0]} x {size[1]}')
    return values.astype(np.int64)


class _MaskReader:
    """Reads the objects of one image.

    Args:
        root (Path): The folder of all masks.
        kind (str): One of :data:`KINDS`.
        classes (Sequence[str]): Names of the classes.
        values (Sequence[int]): The value of each class.
        class_divisor (int | None): What turns the value of an object into that of its class.
        ignore_values (Sequence[int]): Values that are no object.
        min_area (int): Objects of fewer pixels are left out.
        mask_suffix (str): What stands between the name of an image and the suffix of its mask.
        empty_without_mask (bool): An image without a mask has no objects.
    """

    def __init__(
        self,
        root: Path,
        kind: str,
        classes: Sequence[str],
        values: Sequence[int],
        class_divisor: Optional[int],
        ignore_values: Sequence[int],
        min_area: int,
        mask_suffix: str,
        empty_without_mask: bool,
    ):
        self.root = root
        self.kind = kind
        self.classes = list(classes)
        self.category_ids = {value: index for index, value in enumerate(values, start=1)}
        self.class_divisor = class_divisor
        self.ignore_values = ignore_values
        self.min_area = min_area
        self.mask_suffix = mask_suffix
        self.empty_without_mask = empty_without_mask

    def read(self, name: str, size: Tuple[int, int], report: Report) -> List[dict]:
        """COCO's annotations of the objects of image ``name``."""
        objects = self._files(name, size, report) if self.kind == 'files' else self._values(name, size)
        return [encode_instance(mask, category_id) for mask, category_id in objects if mask.sum() >= self.min_area]

    def _display(self, path: Path) -> str:
        return f'{self.root.name}/{path.relative_to(self.root).as_posix()}'

    def _missing(self, what: str) -> None:
        if not self.empty_without_mask:
            raise DataError(
                f'{what}; an image without objects has a mask of zeros, or none at all with '
                'empty_without_mask (--empty-without-mask)'
            )

    def _values(self, name: str, size: Tuple[int, int]) -> Iterator[Tuple[np.ndarray, int]]:
        stem = self.root / (name + self.mask_suffix)
        candidates = [stem.with_name(stem.name + suffix) for suffix in (*MASK_SUFFIXES, *LOSSY_SUFFIXES)]
        found = [path for path in candidates if path.is_file()]
        if not found:
            self._missing(f'{self._display(candidates[0])}: no such mask')
            return
        _check_mask_name(found[0], self._display(found[0]))
        path, shown = found[0], self._display(found[0])
        mask = _read_mask(path, shown, size)
        numbers = [int(value) for value in np.unique(mask) if value != 0 and value not in self.ignore_values]
        for number in numbers:
            pixels = mask == number
            if self.kind == 'classes':
                category_id = self._category_id(number, shown)
                count, parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
                yield from ((parts == part, category_id) for part in range(1, count))
            elif self.class_divisor is None:
                if numbers == [255]:
                    parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)[0] - 1
                    if parts > 1:
                        raise DataError(
                            f'{shown}: holds the value 255 alone, in {parts} parts; is that one '
                            "object? If not, kind 'classes' with values 255 is meant"
                        )
                yield pixels, 1
            elif number // self.class_divisor:  # below it there is no class, as for what Cityscapes does not count
                yield pixels, self._category_id(number // self.class_divisor, shown)

    def _category_id(self, value: int, shown: str) -> int:
        if value not in self.category_ids:
            known = ', '.join(f'{value} ({self.classes[index - 1]})' for value, index in self.category_ids.items())
            raise DataError(
                f'{shown}: holds {value}, which is no class; there are {known}; leave it out with '
                'ignore_values (--ignore-values)'
            )
        return self.category_ids[value]

    def _files(self, name: str, size: Tuple[int, int], report: Report) -> Iterator[Tuple[np.ndarray, int]]:
        folder = self.root / (name + self.mask_suffix)
        if not folder.is_dir():
            self._missing(f'{self._display(folder)}: no such folder of masks')
            return
        for path in sorted(path for path in folder.rglob('*') if path.is_file() and not path.name.startswith('.')):
            shown = self._display(path)
            _check_mask_name(path, shown)
            if path.parent == folder and len(self.classes) > 1:
                raise DataError(
                    f'{shown}: of which class? Its folder takes one folder a class: {", ".join(self.classes)}'
                )
            category = path.relative_to(folder).parts[0] if path.parent != folder else self.classes[0]
            if category not in self.classes:
                raise DataError(f'{shown}: {category!r} is no class, there are {", ".join(self.classes)}')
            mask = _read_mask(path, shown, size) != 0
            if not mask.any():
                report(f'{shown}: empty mask')
                continue
            yield mask, self.classes.index(category) + 1


def _check_mask_name(path: Path, shown: str) -> None:
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(f'{shown}: this format changes values; a mask is one of {", ".join(MASK_SUFFIXES)}')
    if path.suffix.lower() not in MASK_SUFFIXES:
        raise DataError(f'{shown}: a mask is one of {", ".join(MASK_SUFFIXES)}')


def _find_images(images: Path) -> Dict[str, Path]:
    """Images by their path without suffix."""
    found: Dict[str, Path] = {}
    for path in sorted(images.rglob('*')):
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file() or path.name.startswith('.'):
            continue
        name = path.relative_to(images).with_suffix('').as_posix()
        if name in found:
            raise ConfigError(
                f'images {str(images)!r} holds {found[name].name} and {path.name}: masks are found by the '
                'name without suffix, so it has to be unique'
            )
        found[name] = path
    if not found:
        raise DataError(f'images {str(images)!r} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    return found


def convert_masks(
    images: Union[str, Path],
    masks: Union[str, Path],
    out_dir: Union[str, Path],
    kind: str,
    classes: Sequence[str] = ('object',),
    values: Optional[Sequence[int]] = None,
    class_divisor: Optional[int] = None,
    ignore_values: Sequence[int] = (),
    min_area: int = 1,
    mask_suffix: str = '',
    empty_without_mask: bool = False,
    val_fraction: float = 0.2,
    seed: int = 0,
    on_error: str = 'skip',
    force: bool = False,
) -> Optional[Converted]:
    """Convert a folder of images and a folder of their masks, whole or not at all.

    Args:
        images (str | Path): Folder of the images, at any depth.
        masks (str | Path): Folder of the masks, with the same folders in it.
        out_dir (str | Path): Where the dataset shall lie.
        kind (str): 'objects', 'classes' or 'files', see :mod:`mmpanet.datasets.converters.masks`.
        classes (Sequence[str]): Names of the classes, in the order of their ids. Defaults to ('object', ).
        values (Sequence[int], optional): The value of each class in the masks. Defaults to 1, 2, 3, ...
        class_divisor (int, optional): For kind 'objects' of several classes: value // class_divisor is the value of
            the class. What is smaller than it is no object.
        ignore_values (Sequence[int]): Values that are no object, such as 255 for borders. 0 always is.
        min_area (int): Objects of fewer pixels are left out, such as specks. Defaults to 1.
        mask_suffix (str): '_mask' finds ``a_mask.png`` for ``a.jpg``. Defaults to ''.
        empty_without_mask (bool): Take an image without a mask as one without objects. By default it is a fault.
        val_fraction (float): Part of the images that go to ``val``. Defaults to 0.2.
        seed (int): Another seed, another split. Defaults to 0.
        on_error (str): What to do about what is bad. 'skip' leaves out an empty file of kind 'files', and for any
            other fault the whole image, whose ground truth could not be trusted; 'raise' stops at the first.
            Defaults to 'skip'.
        force (bool): Replace a dataset made of other files or with other arguments. Defaults to False.

    Returns:
        Converted | None: None if the dataset was there already.
    """
    images, masks = Path(images), Path(masks)
    for key, folder in (('images', images), ('masks', masks)):
        if not folder.is_dir():
            raise DataError(f'{key} {str(folder)!r} is not a folder')
    check_conversion(images, val_fraction, on_error)
    names = check_classes(classes)
    if kind not in KINDS:
        raise ConfigError(f'kind is {kind!r}, it takes {", ".join(KINDS)}')
    if not names:
        raise ConfigError('classes is empty, it takes one name or more')
    if class_divisor is not None and (kind != 'objects' or class_divisor < 2):
        raise ConfigError(f"class_divisor is {class_divisor!r}, it takes 2 or more, with kind 'objects'")
    if kind == 'objects' and class_divisor is None and len(names) > 1:
        raise ConfigError(
            f"classes is {names!r}; with kind 'objects' a value says its class by class_divisor alone, "
            'and there is none'
        )
    if values is not None and (kind == 'files' or (kind == 'objects' and class_divisor is None)):
        raise ConfigError(
            f"values is {tuple(values)!r}; only kind 'classes', or 'objects' with class_divisor, has them"
        )
    class_values = tuple(values) if values is not None else tuple(range(1, len(names) + 1))
    if len(set(class_values)) != len(names) or len(class_values) != len(names) or min(class_values) < 1:
        raise ConfigError(f'values is {class_values!r}, it takes one number above 0 for each of {len(names)} classes')
    if min_area < 1:
        raise ConfigError(f'min_area is {min_area!r}, it takes 1 or more')

    found = _find_images(images)
    reader = _MaskReader(
        masks, kind, names, class_values, class_divisor, ignore_values, min_area, mask_suffix, empty_without_mask
    )

    def read_sample(name: str, report: Report) -> Sample:
        path = found[name]
        content = path.read_bytes()
        file_name = path.relative_to(images).as_posix()
        size = loaded_size(content, file_name)
        return Sample(file_name, content, *size, reader.read(name, size, report))

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        images=fingerprint(images, found.values()),
        masks=fingerprint(masks, (), contents=(path for path in masks.rglob('*') if path.is_file())),
        kind=kind,
        classes=names,
        values=class_values,
        class_divisor=class_divisor,
        ignore_values=sorted(ignore_values),
        min_area=min_area,
        mask_suffix=mask_suffix,
        empty_without_mask=empty_without_mask,
        val_fraction=val_fraction,
        seed=seed,
        on_error=on_error,
    )
    return convert_samples(
        list(found),
        read_sample,
        out_dir,
        recipe,
        names,
        dict(description='from mask images'),
        val_fraction,
        seed,
        on_error,
        force,
    )
