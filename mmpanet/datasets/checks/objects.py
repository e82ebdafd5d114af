# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The annotations of a file in COCO format: what is wrong with them, and what MMDetection leaves out."""

import math
from numbers import Real
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from .rle import box_around, is_far_outside, mask_faults
from .values import is_number, is_whole, short, some


class Reading(NamedTuple):
    """What a run does with an annotation file.

    Attributes:
        masks: It learns or evaluates masks.
        objects: It needs objects: a test set whose results are only written may come without.
        evaluated: pycocotools evaluates on it.
        polygons_only: It loads masks with ``poly2mask=False``, which takes no RLE.
    """

    masks: bool = False
    objects: bool = True
    evaluated: bool = False
    polygons_only: bool = False


class Tally:
    """Texts, each with the first annotation that it is about and their number."""

    def __init__(self) -> None:
        self._found: Dict[str, Tuple[str, int]] = {}

    def add(self, text: str, first: str) -> None:
        known, count = self._found.get(text, (first, 0))
        self._found[text] = (known, count + 1)

    def __iter__(self) -> Iterator[Tuple[str, str, int]]:
        return ((text, first, count) for text, (first, count) in self._found.items())


class Boxes:
    """Boxes that are not those around their masks.

    A box with the corners x1, y1, x2, y2 of its object is the most common one. MMDetection takes them for a box that
    is larger and lies elsewhere.
    """

    TOLERANCE = 2  # pixels; or a tenth of the object, whichever is more

    def __init__(self) -> None:
        self._count = 0
        self._first = ''
        self._corners = 0
        self._decisive = 0  # boxes that cannot be both

    def compare(self, where: str, entry: dict) -> None:
        """Compare the ``bbox`` of an annotation without faults with its ``segmentation``."""
        around = box_around(entry['segmentation'])
        if around is None:
            return
        x1, y1, x2, y2 = around
        tolerance = max(self.TOLERANCE, 0.1 * max(x2 - x1, y2 - y1))

        def fits(box: Sequence[float]) -> bool:
            return all(abs(one - other) <= tolerance for one, other in zip(entry['bbox'], box))

        is_box, is_corners = fits([x1, y1, x2 - x1, y2 - y1]), fits(around)
        self._decisive += not (is_box and is_corners)
        self._corners += is_corners and not is_box
        if not is_box:
            self._count += 1
            self._first = self._first or (
                f'{where}: bbox {entry["bbox"]}, and {[x1, y1, x2 - x1, y2 - y1]} around its segmentation'
            )

    def faults(self) -> List[str]:
        if not self._corners or self._corners < self._decisive:
            return []
        return [f'{self._first}; all boxes are x1, y1, x2, y2, and COCO format takes [x, y, width, height]']

    def lines(self, total: int) -> List[str]:
        if not self._count:
            return []
        return [f'boxes: {self._count} of {total} are not those around their segmentation; the first is {self._first}']


class ObjectFindings(NamedTuple):
    """What a check of annotations finds.

    Attributes:
        faults: What must be fixed.
        left_out: What MMDetection passes over, one line for each reason; and boxes that contradict their masks.
        per_class: Number of objects to learn from or to evaluate, by class.
        images: Ids of images with an object of the classes, which ``filter_empty_gt`` keeps.
    """

    faults: List[str]
    left_out: List[str]
    per_class: Dict[str, int]
    images: set


def check_objects(
    entries: Sequence[Any],
    images: Dict[Any, dict],
    categories: Dict[Any, str],
    classes: Sequence[str],
    reading: Reading,
) -> ObjectFindings:
    """Check the list of annotations.

    Args:
        entries: The list.
        images: The images by id.
        categories: The names of the categories by id.
        classes: The classes of the model.
        reading: What the run does with the file.
    """
    faults, left_out = Tally(), Tally()
    ids: Set[Any] = set()
    of_classes: Set[Any] = set()
    boxes = Boxes()
    per_class = dict.fromkeys(classes, 0)
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            faults.add(f'it is {short(entry)}, it takes an object', f'annotations[{i}]')
            continue
        where = f'annotations[{i}] (id {short(entry.get("id"))})'
        references = list(_reference_faults(entry, images, categories))
        read = reading
        if not references and categories[entry['category_id']] not in classes:
            read = reading._replace(masks=False, evaluated=False)  # only its box and its area are looked at
        found = [*_id_faults(entry, ids, read), *_flag_faults(entry, read), *references]
        if not references:
            found += _geometry_faults(entry, images[entry['image_id']], read)
        for fault in found:
            faults.add(fault, where)
        if found:
            continue
        name = categories[entry['category_id']]
        reason, value = _why_left_out(entry, name, classes, reading)
        if reason:
            left_out.add(reason, f'{where}{value}')
        else:
            per_class[name] += 1
            if reading.masks and _is_sized(images[entry['image_id']]):
                boxes.compare(where, entry)
        if name in per_class:
            of_classes.add(entry['image_id'])
    lines = [f'{where}: {fault}' + (f' ({count} annotations)' if count > 1 else '') for fault, where, count in faults]
    lines += boxes.faults()
    left_out_lines = [
        f'annotations: {count} of {len(entries)} {reason}; the first is {first}' for reason, first, count in left_out
    ]
    left_out_lines += boxes.lines(len(entries))
    return ObjectFindings(lines, left_out_lines, per_class, of_classes)


def _id_faults(entry: dict, ids: set, reading: Reading) -> Iterator[str]:
    value: Any = entry.get('id')
    if not is_whole(value):
        yield f'id is {short(value)}, it takes a whole number, each annotation its own'
        return
    if value in ids:
        yield f'another annotation has the id {value} too, each takes its own'
    ids.add(value)
    if reading.evaluated and value == 0:
        yield (
            'id is 0, and the evaluation by pycocotools counts the object with this id as not found; number the '
            'annotations from 1'
        )


def _flag_faults(entry: dict, reading: Reading) -> Iterator[str]:
    for key in ('iscrowd', 'ignore'):
        value = entry.get(key)
        if value is None:
            if key == 'iscrowd' and reading.evaluated:
                held = 'is None' if key in entry else 'is missing'
                yield f'{key} {held}, it takes 0 or 1, which the evaluation by pycocotools reads'
        elif not isinstance(value, Real) or value not in (0, 1):
            yield f'{key} is {short(value)}, it takes 0 or 1; MMDetection ignores the object for any value but 0'


def _reference_faults(entry: dict, images: Dict[Any, dict], categories: Dict[Any, str]) -> Iterator[str]:
    for key, known, what in (('image_id', images, 'an image'), ('category_id', categories, 'a category')):
        value = entry.get(key)
        if is_whole(value) and value in known:
            continue
        if isinstance(value, str) and value.strip().lstrip('-').isdigit() and int(value) in known:
            yield f'{key} is {value!r}, a string; ids are numbers, it takes {int(value)}'
        elif is_whole(value):
            yield f'{key} is {value}, which no {what.split()[1]} has; there are {some(known)}'
        else:
            yield f'{key} is {short(value)}, it takes the id of {what} (a whole number); there are {some(known)}'


def _geometry_faults(entry: dict, image: dict, reading: Reading) -> Iterator[str]:
    if entry.get('ignore') and not reading.evaluated:
        return
    box: Any = entry.get('bbox')
    area: Any = entry.get('area')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        yield f'bbox is {short(box)}, it takes [x, y, width, height] in pixels, width and height not below 0'
        return
    x, y, width, height = box
    # MMDetection drops a box outside its image. A box without a pixel is left out for that.
    outside = min(box[2:]) >= 1 and (x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0)
    if outside or is_far_outside([x, y, x + width, y + height], image):
        yield (
            f'bbox {box} (x, y, width, height) lies {"outside" if outside else "far beyond"} its image '
            f'{image.get("file_name")!r} of {image["height"]} x {image["width"]} (height x width)'
        )
        return
    if not is_number(area) or area < 0:
        yield f'area is {short(area)}, it takes a number of pixels'
    if reading.masks and _is_sized(image):
        for fault in mask_faults(entry.get('segmentation'), image):
            yield f'segmentation {fault}'


def _is_sized(image: dict) -> bool:
    """Whether the size of an image is known, without which its masks are not looked at."""
    return image['height'] < math.inf and image['width'] < math.inf


def _why_left_out(entry: dict, name: str, classes: Sequence[str], reading: Reading) -> Tuple[str, str]:
    """Why MMDetection learns nothing from an object, or does not count it in the evaluation; and its value."""
    if name not in classes:
        return 'are of categories that are not among the classes', f' of {name!r}'
    if entry.get('iscrowd'):
        return 'have iscrowd 1 (a region of many objects), and are not learned from', ''
    if entry.get('ignore') and not reading.evaluated:
        return 'have ignore 1, and are not learned from', ''
    if min(entry['bbox'][2:]) < 1:
        return 'have a bbox less than a pixel wide or high, and are dropped', f': {entry["bbox"]}'
    if entry['area'] == 0:
        return 'have the area 0, and are dropped', ''
    if reading.polygons_only and isinstance(entry.get('segmentation'), dict):
        return 'have RLE masks, and are not learned from with poly2mask=False', ''
    return '', ''
