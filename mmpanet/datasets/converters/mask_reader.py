# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Finding the masks of an image, and the objects in them."""

from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import cv2
import numpy as np

from mmpanet.datasets.coco_writer import encode_instance
from mmpanet.utils.errors import DataError
from mmpanet.utils.media import list_files, normalized
from .conversion import Report
from .mask_files import LOSSY_SUFFIXES, MASK_SUFFIXES, check_mask_name, check_not_negative, read_mask, unique_values

KINDS = ('objects', 'classes', 'files')


class MaskOptions(NamedTuple):
    """How masks are read, see :func:`.masks.convert_masks`.

    Attributes:
        kind (str): One of :data:`KINDS`.
        classes (Sequence[str]): Names of the classes.
        values (Sequence[int]): The value of each class.
        class_divisor (int | None): The value of an object divided by it is the value of its class.
        ignore_values (Sequence[int]): Values that are no object.
        min_area (int): Objects with fewer pixels are left out.
        mask_suffix (str): The text between the name of an image and the suffix of its mask.
        empty_without_mask (bool): An image without a mask has no objects.
    """

    kind: str
    classes: Sequence[str]
    values: Sequence[int]
    class_divisor: Optional[int]
    ignore_values: Sequence[int]
    min_area: int
    mask_suffix: str
    empty_without_mask: bool


class MaskReader:
    """Reads the objects of images from their masks.

    Args:
        root (Path): The folder of all masks.
        options (MaskOptions): How masks are read.
        images (Mapping[str, Path]): All images by their names without suffix.
    """

    def __init__(self, root: Path, options: MaskOptions, images: Mapping[str, Path]) -> None:
        self.root = root
        self.options = options
        self.category_ids = {value: index for index, value in enumerate(options.values, start=1)}
        self.small = 0  # objects below min_area
        self.without_mask = 0  # images
        self.only_ones = 0  # masks
        self.files = list_files(root)
        self.used: Set[Path] = set()
        self._by_name: Dict[str, List[Path]] = {}
        self._by_folded_name: Dict[str, List[Path]] = {}
        self._by_start: Dict[str, List[Path]] = {}  # by the name before further suffixes: a.nii.gz, a.ome.tif
        exact = {normalized(name + options.mask_suffix) for name in images}
        self._images = {path.resolve() for path in images.values()}  # which may lie among the masks
        for path in self.files:
            relative = path.relative_to(root)
            stems = [relative.with_suffix('').as_posix()]
            if options.kind == 'files':
                stems = [folder.as_posix() for folder in relative.parents if folder.as_posix() != '.']
            for stem in map(normalized, stems):
                self._by_name.setdefault(stem, []).append(path)
                if stem not in exact:
                    self._by_folded_name.setdefault(stem.casefold(), []).append(path)
                    for start in _starts(stem) if options.kind != 'files' else ():
                        self._by_start.setdefault(start.casefold(), []).append(path)

    def read(self, name: str, size: Tuple[int, int], report: Report) -> List[dict]:
        """Make the COCO annotations of the objects in image ``name``.

        Args:
            name (str): The path of the image in its folder, without suffix.
            size (tuple[int]): Its height and width.
            report (Callable): Called for a file that holds no object.
        """
        files = self._find(name + self.options.mask_suffix)
        found = self._read_files(files, name, size, report) if self.options.kind == 'files' else self._read(files, size)
        instances = []
        for mask, category_id in found:
            if int(np.count_nonzero(mask)) >= self.options.min_area:
                instances.append(encode_instance(mask, category_id))
            else:
                self.small += 1
        return instances

    def notes(self) -> List[str]:
        """What was left out by the options."""
        lines = []
        if self.small:
            lines.append(f'{self.small} objects of fewer than {self.options.min_area} pixels are left out (min_area)')
        if self.only_ones:
            lines.append(
                f'{self.only_ones} masks hold the value 1 alone, in several parts, and each is one object; if the '
                "parts are objects, kind 'classes' is meant"
            )
        if self.without_mask:
            lines.append(f'{self.without_mask} images have no mask, and so no objects (empty_without_mask)')
        unused = [
            path
            for path in self.files
            if path.suffix.lower() in MASK_SUFFIXES and path not in self.used and path.resolve() not in self._images
        ]
        if unused:
            lines.append(f'{len(unused)} masks belong to no image, the first is {self._display(unused[0])}')
        return lines

    def _find(self, stem: str) -> List[Path]:
        """Files of this name: with any suffix, and if there is none, with letters in another case."""
        stem = normalized(stem)
        found = self._by_name.get(stem) or self._by_folded_name.get(stem.casefold()) or []
        self.used.update(found)
        alike = [] if found else self._by_start.get(stem.casefold(), [])
        if alike:
            raise DataError(
                f'{self._display(alike[0])}: is it the mask of this image? Then its name is '
                f'{Path(stem).name}{MASK_SUFFIXES[0]}; a mask is one of {", ".join(MASK_SUFFIXES)}'
            )
        is_empty_folder = self.options.kind == 'files' and (self.root / stem).is_dir()
        if not found and not is_empty_folder:
            if not self.options.empty_without_mask:
                what = 'folder of masks' if self.options.kind == 'files' else 'mask'
                shown = f'{self.root.name}/{stem}' + ('' if self.options.kind == 'files' else MASK_SUFFIXES[0])
                raise DataError(
                    f'{shown}: no such {what}; an image without objects has a mask of zeros, or none at all with '
                    'empty_without_mask (--empty-without-mask)'
                )
            self.without_mask += 1
        return found

    def _display(self, path: Path) -> str:
        return f'{self.root.name}/{path.relative_to(self.root).as_posix()}'

    def _read(self, files: Sequence[Path], size: Tuple[int, int]) -> Iterator[Tuple[np.ndarray, int]]:
        """Objects of the one mask of an image."""
        if not files:
            return
        masks = [path for path in files if path.suffix.lower() in MASK_SUFFIXES]
        if len(masks) > 1:
            raise DataError(f'{self._display(masks[0])}: {masks[1].name} is a mask of the same image; one is needed')
        if not masks:
            named = [path for path in files if path.suffix.lower() in LOSSY_SUFFIXES] or files
            check_mask_name(named[0], self._display(named[0]))
        path, shown = masks[0], self._display(masks[0])
        mask = read_mask(path, shown, size)
        check_not_negative(mask, self.options.ignore_values, shown)
        numbers = [value for value in unique_values(mask) if value != 0 and value not in self.options.ignore_values]
        divisor = self.options.class_divisor
        for number in numbers:
            pixels = mask == number
            if self.options.kind == 'classes':
                category_id = self._category_id(number, shown)
                count, parts = cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)
                yield from ((parts == part, category_id) for part in range(1, count))
            elif divisor is None:
                if numbers == [255]:
                    self._check_is_one(pixels, shown)
                self.only_ones += numbers == [1] and _count_parts(pixels) > 1
                yield pixels, 1
            elif number // divisor:  # a smaller value has no class, as what Cityscapes does not count
                yield pixels, self._category_id(number // divisor, shown)

    def _check_is_one(self, pixels: np.ndarray, shown: str) -> None:
        parts = _count_parts(pixels)
        if parts > 1:
            raise DataError(
                f'{shown}: holds the value 255 alone, in {parts} parts; is that one object? If not, '
                "kind 'classes' with values 255 is meant"
            )

    def _category_id(self, value: int, shown: str) -> int:
        if value not in self.category_ids:
            known = ', '.join(
                f'{value} ({self.options.classes[index - 1]})' for value, index in self.category_ids.items()
            )
            raise DataError(
                f'{shown}: holds {value}, which is no class; there are {known}; leave it out with '
                'ignore_values (--ignore-values)'
            )
        return self.category_ids[value]

    def _read_files(
        self, files: Sequence[Path], name: str, size: Tuple[int, int], report: Report
    ) -> Iterator[Tuple[np.ndarray, int]]:
        """Objects of the folder of an image, one in each file."""
        depth = len(Path(name + self.options.mask_suffix).parts)
        classes = list(self.options.classes)
        for path in files:
            shown = self._display(path)
            check_mask_name(path, shown)
            inside = path.relative_to(self.root).parts[depth:]
            if len(inside) == 1 and len(classes) > 1:
                raise DataError(f'{shown}: of which class? Its folder takes one folder per class: {", ".join(classes)}')
            category = inside[0] if len(inside) > 1 else classes[0]
            if category not in classes:
                raise DataError(f'{shown}: {category!r} is no class, there are {", ".join(classes)}')
            values = read_mask(path, shown, size)
            check_not_negative(values, self.options.ignore_values, shown)
            mask = values != 0
            for ignored in self.options.ignore_values:
                mask &= values != ignored
            if not mask.any():
                report(f'{shown}: empty mask')
                continue
            yield mask, classes.index(category) + 1


def _count_parts(pixels: np.ndarray) -> int:
    return cv2.connectedComponents(pixels.astype(np.uint8), connectivity=8)[0] - 1


def _starts(stem: str) -> List[str]:
    """What comes before each dot in the last part of a path."""
    folder, slash, name = stem.rpartition('/')
    parts = name.split('.')
    return [folder + slash + '.'.join(parts[:count]) for count in range(1, len(parts))]
