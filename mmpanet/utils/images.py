# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What an image file holds, and whether MMDetection would load all of it.

OpenCV, by which MMDetection loads images, takes the first page of a file with several, and the upper 8 bits of values
with more. Both happen without a message. :func:`read_image_info` tells before decoding, and
:func:`check_loadable` refuses.
"""

import io
import struct
import warnings
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence, Union

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from .configs import type_name
from .errors import DataError

MAX_PIXELS = 2**30  # OpenCV's own limit, unless OPENCV_IO_MAX_IMAGE_PIXELS sets another
ORIENTATION, SUBFILE_TYPE, BITS_PER_SAMPLE = 274, 254, 258  # tags of EXIF and TIFF
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, TypeError, IndexError, MemoryError)


class ImageInfo(NamedTuple):
    """What the header of an image file says.

    Attributes:
        height: Rows of the image as it is loaded, turned as its EXIF data say.
        width: Columns, the same.
        pages: Full images in the file. Thumbnails and previews of cameras do not count.
        bits: Bits per channel.
        mode: Pillow's mode, such as ``RGB``, or OpenCV's type if only OpenCV reads the file.
        is_turned: Whether its EXIF data turn or mirror it.
        format: Pillow's name of the format, or an empty string if only OpenCV reads the file.
    """

    height: int
    width: int
    pages: int
    bits: int
    mode: str
    is_turned: bool = False
    format: str = ''


class Loading(NamedTuple):
    """What a pipeline loads of an image file.

    Attributes:
        first_page: The first page of a file with several.
        eight_bits: 8 bits per channel.
        turned: The image turned as its EXIF data say.
        by_opencv: What OpenCV reads.
    """

    first_page: bool = True
    eight_bits: bool = True
    turned: bool = True
    by_opencv: bool = True


BY_MMDET = Loading()


def find_loading(pipeline: Sequence[Any]) -> Loading:
    """What the first step of a pipeline that loads, loads. What others than ``LoadImageFromFile`` do is not known."""
    first = next((step for step in pipeline if isinstance(step, dict) and 'Load' in type_name(step.get('type'))), {})
    kind = first.get('type')
    if type_name(kind) != 'LoadImageFromFile':
        return Loading(False, False, False, False)
    color_type, backend = first.get('color_type', 'color'), first.get('imdecode_backend') or 'cv2'
    first_page, by_opencv = backend != 'tifffile', backend == 'cv2'
    turned = backend in ('cv2', 'pillow') and color_type in ('color', 'grayscale')  # not color_ignore_orientation
    return Loading(first_page, first_page and color_type != 'unchanged', turned, by_opencv)


@contextmanager
def open_image(source: Union[Path, bytes], name: str) -> Iterator[Image.Image]:
    """Open an image with Pillow, of any size.

    Args:
        source: Its file, or the content of the file.
        name: What messages call it.

    Raises:
        DataError: If it cannot be read, there or in the ``with`` block, or has more than :data:`MAX_PIXELS` pixels.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow refuses from 179 million pixels on
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(
                        f'{name}: {image.height} x {image.width} pixels (height x width), OpenCV reads images of up '
                        f'to {MAX_PIXELS} pixels; cut it into tiles'
                    )
                yield image
    except DataError:
        raise
    except _UNREADABLE as error:
        reason = str(error).replace('\n', ' ') or type(error).__name__
        raise DataError(f'{name}: not readable as an image ({reason})') from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_image_info(source: Union[Path, bytes], name: str) -> ImageInfo:
    """Read the header of an image file; pixels are decoded only where Pillow does not know the format.

    Args:
        source: Its file, or the content of the file.
        name: What messages call it.

    Raises:
        DataError: If neither Pillow nor OpenCV can read it.
    """
    try:
        with open_image(source, name) as image:
            height, width = image.height, image.width
            orientation = _orientation(image)
            if orientation >= 5:
                height, width = width, height
            pages, bits = _count_pages(image), _bits(image, source)
            return ImageInfo(height, width, pages, bits, image.mode, orientation > 1, image.format or '')
    except DataError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):  # damaged, or too large
            raise
        data = source if isinstance(source, bytes) else source.read_bytes()
        pixels = decode_image(data, cv2.IMREAD_UNCHANGED, name)
        pages = 1 if isinstance(source, bytes) else max(1, cv2.imcount(str(source)))
        return ImageInfo(pixels.shape[0], pixels.shape[1], pages, 8 * pixels.dtype.itemsize, str(pixels.dtype))


def _orientation(image: Image.Image) -> int:
    """EXIF's number; from 5 on, height and width change places."""
    if image.format == 'TIFF' or (image.format == 'PNG' and 'exif' not in image.info):
        return 1  # Pillow turns a TIFF itself, and decodes a whole PNG to look for data behind the pixels
    exif = Image.Exif()
    try:
        exif.load(image.info.get('exif', b''))  # getexif() of Pillow looks at XMP too, which OpenCV does not know
    except _UNREADABLE:
        return 1
    value = exif.get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 and _opencv_turns(image.format or '') else 1


@lru_cache(maxsize=None)
def _opencv_turns(image_format: str) -> bool:
    """Whether this OpenCV turns images of a format as their EXIF data say. OpenCV 4 does not turn WebP, 5 does."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = 6
    try:
        Image.new('RGB', (2, 1)).save(file, 'JPEG' if image_format == 'MPO' else image_format, exif=exif)
    except _UNREADABLE:  # Pillow cannot write it
        return True
    pixels = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    return pixels is None or pixels.shape[:2] == (2, 1)


def _count_pages(image: Image.Image) -> int:
    pages = getattr(image, 'n_frames', 1)
    if pages == 1 or image.format == 'MPO':  # a JPEG of a camera: the others are previews, or the second eye's
        return 1
    if image.format != 'TIFF':
        return pages
    full = 0
    for page in range(pages):
        image.seek(page)
        full += not image.tag_v2.get(SUBFILE_TYPE, 0) & 0b101  # smaller versions, and masks of transparency
    image.seek(0)
    return max(1, full)


def _bits(image: Image.Image, source: Union[Path, bytes]) -> int:
    """Bits per channel in the file: Pillow cuts 16 bits of color to 8 as it reads."""
    if image.format == 'PNG':
        return _head(source, 25)[24]
    if image.format == 'TIFF':
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if image.format == 'PPM':
        return 16 if _pnm_maximum(_head(source, 512)) > 255 else 8
    return {'I': 32, 'F': 32, '1': 1}.get(image.mode, 16 if image.mode.startswith('I;16') else 8)


def _head(source: Union[Path, bytes], size: int) -> bytes:
    if isinstance(source, bytes):
        return source[:size]
    with open(source, 'rb') as file:
        return file.read(size)


def _pnm_maximum(head: bytes) -> int:
    """The largest value that a PGM or PPM file says it holds."""
    lines = [line.split(b'#')[0] for line in head.split(b'\n')]
    words = b' '.join(lines).split()
    return int(words[3]) if words[0] in (b'P2', b'P3', b'P5', b'P6') and words[3].isdigit() else 1


def check_loadable(info: ImageInfo, name: str, loading: Loading = BY_MMDET) -> None:
    """Refuse an image of which only a part would be loaded.

    Args:
        info: What :func:`read_image_info` says.
        name: What messages call it.
        loading: What is loaded. Defaults to what MMDetection loads.

    Raises:
        DataError: If it has several pages, or more than 8 bits per channel.
    """
    if loading.first_page and info.pages > 1:
        raise DataError(
            f'{name}: holds {info.pages} pages (a stack or an animation), and only the first would be read; save '
            'each page as an image of its own'
        )
    if loading.eight_bits and info.bits > 8:
        raise DataError(
            f'{name}: holds {info.bits} bits per channel, not 8 (uint8), and the lower ones would be cut off; '
            'scale the values to 0..255 first, by the same factor in all images'
        )


def check_whole(source: Union[Path, bytes], name: str) -> None:
    """Refuse a damaged image. OpenCV makes up what is missing, where Pillow stops.

    Args:
        source: Its file, or the content of the file.
        name: What messages call it.

    Raises:
        DataError: If it cannot be decoded completely.
    """
    try:
        with open_image(source, name) as image:
            image.load()
    except DataError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):  # a format that only OpenCV knows
            raise


def decode_image(data: bytes, flags: int, name: str) -> np.ndarray:
    """Decode an image with OpenCV.

    Args:
        data: Content of its file.
        flags: OpenCV's, such as ``cv2.IMREAD_COLOR``, with which MMDetection loads images.
        name: What messages call it.

    Returns:
        (H, W) or (H, W, channels), channels in the order BGR.

    Raises:
        DataError: If it cannot be decoded.
    """
    image, reason = None, ''
    try:
        with silent_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except (cv2.error, MemoryError) as error:
        reason = ' (' + str(error).strip().replace('\n', ' ') + ')'
    if image is None:
        raise DataError(f'{name}: not readable as an image{reason}')
    return image


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV from printing lines of its own about a damaged file, where an error names the file."""
    # OpenCV up to 4.12 has the two functions in cv2 itself, later ones in cv2.utils.logging.
    logging = cv2 if hasattr(cv2, 'setLogLevel') else cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(0)  # silent
    try:
        yield
    finally:
        logging.setLogLevel(level)
