# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reading mask images, in which the value of a pixel is a number, not a color."""

from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from PIL import Image, ImageOps

from mmpanet.utils.errors import DataError
from mmpanet.utils.images import Loading, check_loadable, decode_image, open_image, read_image_info

MASK_SUFFIXES = ('.png', '.tif', '.tiff', '.bmp', '.gif')
LOSSY_SUFFIXES = ('.jpg', '.jpeg', '.webp')
LOSSLESS_FORMATS = ('PNG', 'TIFF', 'BMP', 'GIF', 'DIB')
GRAY_MODES = ('1', 'L', 'LA', 'La', 'P', 'PA', 'I', 'F', 'I;16', 'I;16L', 'I;16B', 'I;16N')
COLOR_MODES = ('RGB', 'RGBA', 'RGBX', 'RGBa')
# Tags of TIFF, each with one of its values.
SAMPLE_FORMAT, SIGNED = 339, 2
PHOTOMETRIC_INTERPRETATION, WHITE_IS_ZERO = 262, 0


def read_mask(source: Union[Path, bytes], name: str, size: Optional[Tuple[int, int]] = None) -> np.ndarray:
    """Read the values of a mask.

    Indices of a palette are its values, except in a GIF: programs renumber the colors of a GIF when they save it, so
    that its gray levels are the values. Gray saved as RGB is read as gray. Transparency is ignored where it says the
    same as the values.

    Args:
        source: Its file, or the content of the file.
        name: What messages call it.
        size: Height and width that it must have.

    Returns:
        (H, W) integers. Negative values, which signed and float files can hold, stay negative.

    Raises:
        DataError: If it has no single whole number per pixel, several pages, or another size.
    """
    info = read_image_info(source, name)
    check_loadable(info, name, Loading(eight_bits=False))
    if size is not None and (info.height, info.width) != tuple(size):
        raise DataError(f'{name}: {info.height} x {info.width}, its image is {size[0]} x {size[1]}')
    only_opencv = info.mode.startswith(('int', 'uint', 'float'))
    if info.mode not in GRAY_MODES + COLOR_MODES and not only_opencv:
        raise DataError(f'{name}: holds {info.mode} colors; a mask holds one number per pixel, or indices of a palette')
    if only_opencv or (info.bits > 8 and info.mode in COLOR_MODES + ('LA',)):
        # Pillow cuts 16 bits of color to 8
        data = source if isinstance(source, bytes) else source.read_bytes()
        pixels = decode_image(data, cv2.IMREAD_UNCHANGED, name)
    else:
        with open_image(source, name) as image:
            pixels = _pillow_values(image, name)
        if info.mode == 'L' and info.bits in (2, 4):
            pixels = pixels // (255 // (2**info.bits - 1))  # Pillow spreads 2 and 4 bits over the range of 8
    return _whole_numbers(_without_alpha(pixels, name), name)


def _pillow_values(image: Image.Image, name: str) -> np.ndarray:
    if image.format not in LOSSLESS_FORMATS or 'jpeg' in str(image.info.get('compression')):
        raise DataError(f'{name}: holds {image.format} data, which changes values; save masks as PNG')
    tags = image.tag_v2 if image.format == 'TIFF' else {}
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        raise DataError(
            f'{name}: its PhotometricInterpretation is 0 (WhiteIsZero), and programs disagree on the values of such a '
            'file; save the mask as PNG'
        )
    is_signed = SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1))
    image.load()
    if image.format == 'GIF':
        pixels = np.asarray(image.convert('RGB'))
    else:
        pixels = np.asarray(ImageOps.exif_transpose(image))
    if is_signed and pixels.dtype.kind == 'u':
        pixels = pixels.view(f'i{pixels.dtype.itemsize}')
    return pixels


def _without_alpha(pixels: np.ndarray, name: str) -> np.ndarray:
    """One channel of what is gray; the last channel of two or four is the opacity."""
    if pixels.ndim == 2:
        return pixels
    channels = pixels.shape[2]
    values, alpha = pixels[..., 0], pixels[..., -1] if channels in (2, 4) else None
    if channels > 4 or any((pixels[..., i] != values).any() for i in range(1, 3 if channels > 2 else 1)):
        raise DataError(f'{name}: holds colors; a mask holds one number per pixel, or indices of a palette')
    if alpha is not None and (alpha != alpha.flat[0]).any() and ((alpha != 0) != (values != 0)).any():
        raise DataError(
            f'{name}: is partly transparent, and its transparency says other than its values; save it without an '
            'alpha channel'
        )
    return values


def _whole_numbers(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind == 'b':
        return values.astype(np.uint8)
    if values.dtype.kind in 'ui':
        return values
    wrong = ~np.isfinite(values)
    wrong |= np.abs(np.where(wrong, 0, values)) > 2**31
    wrong |= np.rint(np.where(wrong, 0, values)) != values
    if wrong.any():
        raise DataError(
            f'{name}: holds {values.dtype} values such as {values[wrong].flat[0]}; a mask holds whole numbers'
        )
    return values.astype(np.int32)


def check_mask_name(path: Path, name: str) -> None:
    """Refuse a file whose suffix is not that of a mask."""
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(f'{name}: this format changes values; a mask is one of {", ".join(MASK_SUFFIXES)}')
    if path.suffix.lower() not in MASK_SUFFIXES:
        raise DataError(f'{name}: a mask is one of {", ".join(MASK_SUFFIXES)}')


def check_not_negative(mask: np.ndarray, ignore_values: Sequence[int], name: str) -> None:
    """Refuse negative values, which mark borders or are unsigned values that were saved as signed ones."""
    lowest = int(mask.min()) if mask.size else 0
    if lowest < 0:
        negative = [value for value in unique_values(mask) if value < 0 and value not in ignore_values]
        if negative:
            raise DataError(
                f'{name}: holds the negative value {negative[0]}; if it is no object, leave it out with ignore_values '
                f'(--ignore-values {negative[0]})'
            )


def unique_values(mask: np.ndarray) -> List[int]:
    """The different values of a mask, sorted; in parts, so that a large mask is not copied as a whole."""
    found: set = set()
    rows = max(1, 2**24 // max(1, mask.shape[1]))
    for start in range(0, mask.shape[0], rows):
        found.update(np.unique(mask[start : start + rows]).tolist())
    return sorted(found)
