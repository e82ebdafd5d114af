# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mask images to COCO format.

One folder holds the images, another one their masks, in one of three kinds:

=========  ==========================  ==================================================================
kind       masks                       an object is
=========  ==========================  ==================================================================
objects    ``<masks>/<image>.png``     all pixels of one value except 0
classes    ``<masks>/<image>.png``     a connected part of the pixels of one value, which is its class
files      ``<masks>/<image>/*.png``   all pixels of one file that are not 0; with several classes, files
                                       lie in ``<masks>/<image>/<class>/``
=========  ==========================  ==================================================================

Values are whole numbers, or the indices of a palette. With ``class_divisor`` the value of an object holds its class as
well, as in Cityscapes: 26003 // 1000 is class 26.
"""

from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.utils.images import read_image_info
from mmpanet.utils.media import IMAGE_SUFFIXES, folded_name, list_files
from .conversion import (
    Converted,
    Report,
    Sample,
    check_classes,
    check_settings,
    check_source,
    convert_samples,
    decode_whole,
    fingerprint,
)
from .mask_reader import KINDS, MaskOptions, MaskReader

GENERATOR = 'mmpanet.datasets.converters.masks'
VERSION = 3


def _is_among(path: Path, images: Path, masks: Path) -> bool:
    """Whether a file lies in the folder of the masks, and this one in that of the images."""
    return images.resolve() in masks.resolve().parents and masks.resolve() in path.resolve().parents


def _find_images(images: Path, masks: Path, kind: str, mask_suffix: str) -> Dict[str, Path]:
    """Images by their path without suffix, without masks that lie among them."""
    found: Dict[str, Path] = {}
    for path in list_files(images, IMAGE_SUFFIXES):
        if _is_among(path, images, masks):
            continue
        name = path.relative_to(images).with_suffix('').as_posix()
        if name in found:
            raise DataError(
                f'images {str(images)!r} holds {found[name].name} and {path.name}: masks are found by the '
                'name without suffix, so it has to be unique'
            )
        found[name] = path
    # Masks are found by their names in upper or lower case.
    folded = {folded_name(name + mask_suffix) for name in found}
    if kind == 'files':
        root = masks.resolve()

        def is_mask(path: Path) -> bool:
            folders = [folder for folder in path.resolve().parents if root in folder.parents]
            return any(folded_name(folder.relative_to(root).as_posix()) in folded for folder in folders)

        found = {name: path for name, path in found.items() if not is_mask(path)}
    elif mask_suffix and (masks.resolve() == images.resolve() or images.resolve() in masks.resolve().parents):
        found = {name: path for name, path in found.items() if folded_name(name) not in folded}
    if not found:
        raise DataError(f'images {str(images)!r} holds no image ({", ".join(IMAGE_SUFFIXES)})')
    return found


def _notes_on_images(images: Path, masks: Path, turned: Sequence[str]) -> List[str]:
    """Files that are not taken for images, and images whose masks must be turned as they are."""
    lines = []
    others = [
        path
        for path in list_files(images)
        if path.suffix.lower() not in IMAGE_SUFFIXES and not _is_among(path, images, masks)
    ]
    if others:
        first = others[0].relative_to(images).as_posix()
        lines.append(
            f'{len(others)} files in {images} are not taken for images, the first is {first}; taken are '
            f'{", ".join(IMAGE_SUFFIXES)}'
        )
    if turned:
        lines.append(
            f'{len(turned)} images are turned or mirrored by their EXIF data, as MMDetection loads them, and their '
            f'masks have to be turned too; the first is {turned[0]}'
        )
    return lines


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
    """Convert a folder of images and a folder of their masks.

    Masks are found by the name of their image, with any suffix of a mask and in upper or lower case.

    Args:
        images (str | Path): Folder of the images, at any depth.
        masks (str | Path): Folder of the masks, with the same folders in it.
        out_dir (str | Path): The folder of the dataset. It is complete or is not there.
        kind (str): 'objects', 'classes' or 'files', see :mod:`mmpanet.datasets.converters.masks`.
        classes (Sequence[str]): Names of the classes, in the order of their ids. Defaults to ('object', ).
        values (Sequence[int], optional): The value of each class in the masks. Defaults to 1, 2, 3, ...
        class_divisor (int, optional): With kind 'objects' and several classes: value // class_divisor is the value of
            the class. A value below class_divisor is no object.
        ignore_values (Sequence[int]): Values that are no object, such as 255 or -1 for borders. 0 never is one.
        min_area (int): Objects with fewer pixels are left out. Defaults to 1.
        mask_suffix (str): '_mask' finds ``a_mask.png`` for ``a.jpg``. Defaults to ''.
        empty_without_mask (bool): Take an image without a mask as an image without objects. By default it is a fault.
        val_fraction (float): Fraction of the images for ``val``. Defaults to 0.2.
        seed (int): Seed of the split. Defaults to 0.
        on_error (str): 'skip' leaves out an empty file of kind 'files', and for any other fault the whole image, and
            says so. 'raise' stops at the first fault. Defaults to 'skip'.
        force (bool): Replace a dataset made from other files or with other arguments. Defaults to False.

    Returns:
        Converted | None: None if the same dataset is there already.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
        DataError: If nothing can be converted, or at the first fault with ``on_error='raise'``.
    """
    images, masks = Path(images), Path(masks)
    for key, folder in (('images', images), ('masks', masks)):
        check_source(folder, Path(out_dir), key)
    check_settings(val_fraction, on_error)
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

    if images.resolve() == masks.resolve() and not mask_suffix and kind != 'files':
        raise ConfigError(
            f'masks {str(masks)!r} is the folder of the images; give another one, or mask_suffix (--mask-suffix)'
        )
    found = _find_images(images, masks, kind, mask_suffix)
    options = MaskOptions(
        kind, names, class_values, class_divisor, tuple(ignore_values), min_area, mask_suffix, empty_without_mask
    )
    reader = MaskReader(masks, options, found)

    turned: List[str] = []

    def read_sample(name: str, report: Report) -> Sample:
        path = found[name]
        content = path.read_bytes()
        file_name = path.relative_to(images).as_posix()
        height, width = decode_whole(content, file_name).shape[:2]
        if read_image_info(content, file_name).is_turned:
            turned.append(file_name)
        return Sample(file_name, content, height, width, reader.read(name, (height, width), report))

    recipe = dict(
        generator=GENERATOR,
        version=VERSION,
        images=fingerprint(images, found.values()),
        masks=fingerprint(masks, reader.files),
        kind=kind,
        classes=names,
        values=class_values,
        class_divisor=class_divisor,
        ignore_values=sorted(ignore_values),
        min_area=min_area,
        mask_suffix=mask_suffix,
        empty_without_mask=empty_without_mask,
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
        lambda: [*reader.notes(), *_notes_on_images(images, masks, turned)],
    )
