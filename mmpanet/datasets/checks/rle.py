# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Masks of annotations: polygons and run-length encodings (RLE), what is wrong with them, and the boxes around them."""

from typing import Any, Iterator, List, Optional, Sequence, Union

import numpy as np

from .values import is_number, is_whole, short


def mask_faults(segmentation: Any, image: dict) -> Iterator[str]:
    """Say what is wrong with the ``segmentation`` of an annotation.

    Args:
        segmentation: Its value.
        image: The entry of its image, with ``height``, ``width`` and ``file_name``.
    """
    if isinstance(segmentation, list) and segmentation:
        for i, polygon in enumerate(segmentation):
            fault = _polygon_fault(polygon, image)
            if fault:
                yield f'[{i}] {fault}'
    elif isinstance(segmentation, dict) and 'counts' in segmentation:
        yield from _rle_faults(segmentation, image)
    else:
        yield f'is {short(segmentation)}, it takes polygons or RLE (counts and size)'


def _polygon_fault(polygon: Any, image: dict) -> str:
    if not isinstance(polygon, list) or not all(map(is_number, polygon)):
        return f'is {short(polygon)}, it takes a list of coordinates: x1, y1, x2, y2, ...'
    if len(polygon) % 2 or len(polygon) < 6:
        return (
            f'has {len(polygon)} coordinates, a polygon takes an even number of them, x1, y1, x2, y2, ..., and 6 or '
            'more'
        )
    if is_far_outside(polygon, image):
        return (
            f'is {short(polygon)}, far beyond its image {image.get("file_name")!r} of '
            f'{image["height"]} x {image["width"]} (height x width)'
        )
    return ''


def _rle_faults(segmentation: dict, image: dict) -> Iterator[str]:
    size = segmentation.get('size')
    expected = [int(image['height']), int(image['width'])]
    if size != expected or not all(type(side) is int for side in size):
        yield (
            f'has size {short(size)}, it takes that of its image {image.get("file_name")!r}: '
            f'[{expected[0]}, {expected[1]}] (height, width)'
        )
        return
    try:
        runs = rle_runs(segmentation['counts'])
    except ValueError as error:
        yield f'has counts {short(segmentation["counts"])} that are no RLE ({error})'
        return
    if (runs < 0).any() or runs.sum() != expected[0] * expected[1]:
        yield (
            f'has counts that say {runs.sum()} pixels, it takes {expected[0] * expected[1]}, those of its image of '
            f'{expected[0]} x {expected[1]}'
        )


def box_around(segmentation: Union[list, dict]) -> Optional[List[float]]:
    """The box around a mask without a fault, as x1, y1, x2, y2 in pixels; None if it has no pixel."""
    if isinstance(segmentation, list):
        xs = [x for polygon in segmentation for x in polygon[::2]]
        ys = [y for polygon in segmentation for y in polygon[1::2]]
        return [min(xs), min(ys), max(xs), max(ys)]
    runs = rle_runs(segmentation['counts'])
    ends = runs.cumsum()[1::2]
    starts = (ends - runs[1::2])[runs[1::2] > 0]
    lasts = ends[runs[1::2] > 0] - 1
    if not len(starts):
        return None
    height = segmentation['size'][0]
    one_column = starts // height == lasts // height
    top = int((starts % height).min()) if one_column.all() else 0
    bottom = int((lasts % height).max()) if one_column.all() else height - 1
    return [int(starts[0]) // height, top, int(lasts[-1]) // height + 1, bottom + 1]


def is_far_outside(corners: Sequence[float], image: dict) -> bool:
    """Whether one of the coordinates x, y, x, y, ... is off the image by more than the size of the image."""
    return any(
        not -side <= value <= 2 * side
        for i, side in enumerate((image['width'], image['height']))
        for value in corners[i::2]
    )


def rle_runs(counts: Union[str, list]) -> np.ndarray:
    """Lengths of the runs of an RLE, alternately outside and inside the object.

    A string is decoded as by ``rleFrString`` of pycocotools. Each character holds five bits, the lowest first. Bit 5
    says that more follow. Bit 4 of the last one is the sign. From the fourth run on, the number is the difference to
    the run before the last one.

    Args:
        counts (str | list[int]): Compressed, or not compressed.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(counts, list):
        if not all(is_whole(count) and 0 <= count < 2**32 for count in counts):
            raise ValueError('a list takes lengths of runs')
        return np.array(counts, np.int64)
    if not isinstance(counts, str) or not counts:
        raise ValueError('it takes a string or a list')
    codes = np.frombuffer(counts.encode('utf-8', 'replace'), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    if codes.min() < 0 or codes.max() > 63 or not len(last) or last[-1] != len(codes) - 1:
        raise ValueError('the string is damaged')
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 7:  # more than 32 bits
        raise ValueError('the string is damaged')
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    runs = np.add.reduceat((codes & 31) << shifts, first)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
