# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""COCO's files of annotations and of predictions with masks, image by image.

Predictions are the ``<prefix>.segm.json`` that mmdet's ``CocoMetric`` writes if it has an ``outfile_prefix``.
"""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional

from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmpanet.datasets.checks.rle import mask_faults
from mmpanet.datasets.checks.values import is_integer, is_number, is_whole
from mmpanet.utils.errors import DataError

Rle = Dict[str, Any]  # COCO's compressed run-length encoding: size and counts
Instance = Dict[str, Any]  # an object or a prediction: category_id, mask, and more


class Annotations:
    """A COCO file of masks, image by image.

    Raises:
        DataError: If the file does not exist, or is not in COCO's format.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            content = json.loads(Path(file).read_text(encoding='utf-8'))
            self.coco = COCO()
            self.coco.dataset = content
            self.coco.createIndex()
            self.images = {image['id']: image for image in content['images']}
            for one in content['annotations']:
                if one.get('iscrowd') is None:
                    one['iscrowd'] = 0
                _check_annotation(one)
            used = sorted({one['category_id'] for one in content['annotations']})
            content['categories'] = content.get('categories') or [dict(id=one) for one in used]
            self.categories = {category['id'] for category in content['categories']}
            for key, name in (('images', 'image'), ('categories', 'category'), ('annotations', 'annotation')):
                ids = Counter(one['id'] for one in content[key])
                if len(ids) < len(content[key]):
                    raise ValueError(f'{name} id {ids.most_common(1)[0][0]!r} is there several times')
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f'{file}: no annotations in COCO format ({type(error).__name__}: {error})') from error

    def check_masks(self) -> None:
        """Raise a DataError if an object has no mask, or one that is not in COCO's format."""
        for one in self.coco.dataset['annotations']:
            if not one.get('segmentation'):
                raise DataError(f"{self.file}: annotation {one['id']} has no 'segmentation', and masks are compared")
            image = self.images.get(one['image_id'])
            if image is None:
                continue  # of no image that is compared
            missing = [side for side in ('height', 'width') if not is_number(image.get(side))]
            if missing:
                raise DataError(
                    f'{self.file}: image {one["image_id"]} has no {missing[0]!r}, which the mask of annotation '
                    f'{one["id"]} needs'
                )
            for fault in mask_faults(one['segmentation'], image):
                raise DataError(f"{self.file}: annotation {one['id']}: 'segmentation' {fault}")

    def check_result(self, result: Dict[str, Any]) -> None:
        """Raise a ValueError if an entry of a file of predictions does not belong to these annotations.

        Counts that are not compressed are replaced by compressed ones, which pycocotools takes.
        """
        if result['image_id'] not in self.images:
            raise ValueError(f'image_id={result["image_id"]!r} is not in {self.file}')
        score, category, size = result['score'], result['category_id'], _size_of(result)
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise ValueError(f'score={score!r} must be a finite number')
        if category not in self.categories:
            raise ValueError(f'category_id={category!r} is not in {self.file}')
        image = self.images[result['image_id']]
        expected = [image.get('height'), image.get('width')]
        if size is not None and None not in expected and size != expected:
            raise ValueError(
                f'image_id={result["image_id"]}: the mask has the size {size}, and the image {expected} (height, width)'
            )
        if size is not None:
            own = dict(height=size[0], width=size[1])
            for fault in mask_faults(result['segmentation'], own):
                raise ValueError(f"image_id={result['image_id']}: 'segmentation' {fault}")
            if isinstance(result['segmentation']['counts'], list):
                result['segmentation'] = coco_mask.frPyObjects(result['segmentation'], *size)

    def objects(self, image_id: int) -> List[Instance]:
        """The objects of an image without its crowd regions."""
        return self._instances(image_id, 0)

    def crowds(self, image_id: int) -> List[Instance]:
        """The crowd regions of an image."""
        return self._instances(image_id, 1)

    def _instances(self, image_id: int, crowd: int) -> List[Instance]:
        return [
            dict(category_id=one['category_id'], mask=self.coco.annToRLE(one), area=one['area'], bbox=one['bbox'])
            for one in self.coco.imgToAnns[image_id]
            if one['iscrowd'] == crowd
        ]


def _size_of(result: Dict[str, Any]) -> Optional[List[int]]:
    """Height and width of the mask of a prediction, or None if it is a box."""
    if 'segmentation' not in result:
        return None
    mask = result['segmentation']
    if not isinstance(mask, dict) or 'size' not in mask or 'counts' not in mask:
        raise ValueError(f"segmentation={str(mask)[:60]} must be COCO's RLE, with 'size' and 'counts'")
    size = mask['size']
    if not isinstance(size, list) or len(size) != 2 or not all(is_integer(side) and side > 0 for side in size):
        raise ValueError(f'size={size!r} of a mask must be its height and width')
    return size


def _check_annotation(annotation: Dict[str, Any]) -> None:
    """Raise a ValueError that names the object and the key that is not in COCO's format."""
    where = f'annotation {annotation.get("id")}'
    for key in ('id', 'image_id', 'category_id', 'area', 'bbox'):
        if key not in annotation:
            raise ValueError(f'{where} has no {key!r}')
    box, area, crowd = annotation['bbox'], annotation['area'], annotation['iscrowd']
    if not is_whole(annotation['id']):
        raise ValueError(f'{where}: id={annotation["id"]!r} must be a whole number')
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise ValueError(f'{where}: bbox={box} must be x, y, width, height')
    if not is_number(area) or area < 0:
        raise ValueError(f'{where}: area={area!r} must be a number of 0 or more')
    if crowd not in (0, 1):
        raise ValueError(f'{where}: iscrowd={crowd!r} must be 0 or 1')


def read_predictions(file: Path, annotations: Annotations) -> Dict[int, List[Instance]]:
    """Predictions by image, best first.

    Raises:
        DataError: If the file does not exist, is not a list of masks, or names an image that is not annotated.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        by_image: Dict[int, List[Instance]] = {image_id: [] for image_id in annotations.images}
        for one in content:
            for key in ('image_id', 'category_id', 'score', 'segmentation'):
                if key not in one:
                    raise ValueError(f'an entry has no {key!r}; it must be the .segm.json that CocoMetric writes')
            annotations.check_result(one)
            by_image[one['image_id']].append(
                dict(category_id=one['category_id'], mask=one['segmentation'], score=one['score'])
            )
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{file}: no list of results in COCO's format ({error})") from error
    return {image_id: sorted(found, key=lambda one: -one['score']) for image_id, found in by_image.items()}
