# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reading LabelMe's JSON files and the images that they are about, as LabelMe reads them."""

import base64
import binascii
import json
import re
from pathlib import Path, PureWindowsPath
from typing import Any, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from mmpanet.utils.errors import DataError
from mmpanet.utils.images import decode_image
from mmpanet.utils.media import IMAGE_SUFFIXES
from .conversion import decode_whole

BYTE_ORDER_MARKS = {b'\xef\xbb\xbf': 'utf-8-sig', b'\xff\xfe': 'utf-16', b'\xfe\xff': 'utf-16'}
SAME = 8  # mean difference of gray levels below which two images are taken for the same
OTHER_ENCODING = 'gb18030'  # of LabelMe before 4.0 on a Chinese Windows


class LabelmeFile(NamedTuple):
    """One JSON file of LabelMe.

    Attributes:
        data: Its content; every label in it is a string.
        encoding: The encoding that it was read with.
    """

    data: dict
    encoding: str

    def labels(self) -> List[str]:
        """The labels of its shapes."""
        return [shape['label'] for shape in self.data['shapes']]


class LabelmeImage(NamedTuple):
    """The image of a JSON file: suffix, content, and height and width as it is loaded for training."""

    suffix: str
    content: bytes
    height: int
    width: int


def read_json(path: Path, name: str, encoding: Optional[str] = None) -> LabelmeFile:
    """Read a JSON file.

    Args:
        path: The file.
        name: What messages call it.
        encoding: Its encoding. By default UTF-8, with a byte order mark or without one, and for what is not UTF-8
            GB18030.

    Raises:
        DataError: If it is no JSON file of LabelMe.
    """
    text, encoding = _decode(path, name, encoding)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f'{name}: not JSON ({error})') from error
    if not isinstance(data, dict) or not isinstance(data.get('shapes'), list):
        raise DataError(f"{name}: not a LabelMe file, it has no list 'shapes'")
    for index, shape in enumerate(data['shapes']):
        label = shape.get('label') if isinstance(shape, dict) else None
        if isinstance(label, (int, float)) and not isinstance(label, bool):
            label = shape['label'] = str(label)
        if not isinstance(shape, dict) or shape.get('label') is None:
            raise DataError(f"{name}: shapes[{index}] has no 'label'")
        if not isinstance(label, str) or not label:
            raise DataError(f'{name}: shapes[{index}]: label is {label!r}, it takes a text')
    return LabelmeFile(data, encoding)


def _decode(path: Path, name: str, encoding: Optional[str]) -> Tuple[str, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f'{name}: cannot be read ({error.strerror})') from error
    marked = [known for mark, known in BYTE_ORDER_MARKS.items() if content.startswith(mark)]
    tried = [encoding] if encoding else marked or ['utf-8', OTHER_ENCODING]
    for candidate in tried:
        try:
            return content.decode(candidate), candidate
        except (UnicodeDecodeError, LookupError):
            continue
    raise DataError(f'{name}: not {" nor ".join(tried)}; give its encoding (--encoding), or save it as UTF-8')


def read_image(data: dict, path: Path, name: str) -> LabelmeImage:
    """Read the image of a JSON file: the file that ``imagePath`` names, or the copy in ``imageData``.

    LabelMe shows the copy if there is one. It is the file itself for PNG and JPEG, and a JPEG of it for other formats,
    of which the file is the better one. A file that has been replaced since is not taken: it has another size, or it
    does not look like the copy. A path of another computer means a file of the same name beside the JSON file.

    Args:
        data: The content of the JSON file.
        path: The JSON file.
        name: What messages call it.

    Raises:
        DataError: If there is no such image, or if it has another size than annotated.
    """
    image_path = data.get('imagePath')
    if not isinstance(image_path, str) or not image_path or '\0' in image_path:
        raise DataError(f"{name}: has no 'imagePath'")
    suffix = PureWindowsPath(image_path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f'{name}: imagePath is {image_path!r}, it takes {", ".join(IMAGE_SUFFIXES)}')
    annotated = tuple(_side(data, key, name) for key in ('imageHeight', 'imageWidth'))
    contents = []
    file = find_image(path.parent, image_path)
    if file is not None:
        contents.append(file.read_bytes())
    if data.get('imageData'):
        contents.append(decode_base64(data['imageData'], f"{name}: 'imageData'"))
    if not contents:
        raise DataError(f"{name}: no image {image_path!r} beside it, and no 'imageData' in it")
    sizes = [decode_whole(content, f'{name}: image {image_path!r}').shape[:2] for content in contents]
    fitting = [
        LabelmeImage(suffix, content, *size)
        for content, size in zip(contents, sizes)
        if all(side in (None, found) for side, found in zip(annotated, size))
    ]
    if len(fitting) == 2 and not _look_alike(fitting[0].content, fitting[1].content):
        return fitting[1]
    if fitting:
        return fitting[0]
    raise DataError(
        f'{name}: annotated at {annotated[0]} x {annotated[1]} (height x width), '
        f'image {image_path!r} is {sizes[0][0]} x {sizes[0][1]}'
    )


def _look_alike(first: bytes, second: bytes) -> bool:
    """Whether two images are the same but for their compression, as far as their means over 8 x 8 pixels show."""
    if first == second:
        return True
    one, other = (decode_image(data, cv2.IMREAD_GRAYSCALE, 'image') for data in (first, second))
    size = (max(1, one.shape[1] // 8), max(1, one.shape[0] // 8))
    one, other = (cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(int) for gray in (one, other))
    return bool(np.abs(one - other).mean() < SAME)


def _side(data: dict, key: str, name: str) -> Optional[int]:
    value: Any = data.get(key)
    if not value:
        return None
    try:
        side = int(value)
        if isinstance(value, (int, float, str)) and side == float(value):
            return side
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f'{name}: {key} is {value!r}, it takes a number of pixels')


def find_image(folder: Path, image_path: str) -> Optional[Path]:
    """The image that ``imagePath`` names, None if there is none.

    Args:
        folder: The folder of the JSON file.
        image_path: A path relative to it, or one of another computer, with slashes or backslashes.
    """
    posix = PureWindowsPath(image_path).as_posix()
    beside = PureWindowsPath(image_path).name
    for candidate in (posix, beside):
        try:
            if (folder / candidate).is_file():
                return folder / candidate
        except (OSError, ValueError):  # a name that the file system does not take
            continue
    same = [file for file in folder.iterdir() if file.name.lower() == beside.lower() and file.is_file()]
    return same[0] if len(same) == 1 else None


def decode_base64(text: Any, name: str) -> bytes:
    """Decode base64 as LabelMe does, which skips line breaks; the head of a data URL is skipped too.

    Raises:
        DataError: If it is no base64.
    """
    try:
        return base64.b64decode(re.sub(r'^data:[^,]*,|\s', '', text), validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f'{name} is not base64 ({error})') from error
