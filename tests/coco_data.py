# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Good data in COCO format, for tests that spoil it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ('bolt', 'nut')
SIZE = (48, 64)
BOXES = {1: (4, 5, 20, 14), 2: (34, 22, 22, 18)}  # category id: x, y, width, height


def make_coco(num_images: int = 3) -> dict:
    """Images of 48 x 64 with a bolt (a polygon) and a nut (an RLE) each, and a category that is none of the classes."""
    images = [dict(id=i, file_name=f'{i}.png', height=SIZE[0], width=SIZE[1]) for i in range(1, num_images + 1)]
    annotations = []
    for image in images:
        for category_id, (x, y, w, h) in BOXES.items():
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            # Runs down the columns
            skipped = x * SIZE[0] + y
            runs = [skipped] + [h, SIZE[0] - h] * (w - 1) + [h, SIZE[0] * (SIZE[1] - x - w + 1) - y - h]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image['id'],
                    category_id=category_id,
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                    segmentation=polygon if category_id == 1 else dict(size=list(SIZE), counts=runs),
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate((*CLASSES, 'washer'), start=1)]
    return dict(images=images, annotations=annotations, categories=categories)


def write_coco(folder: Path, data: dict, name: str = 'train.json') -> Path:
    """Write the data, and images for it."""
    (folder / 'images').mkdir(parents=True, exist_ok=True)
    for image in data['images']:
        path = folder / 'images' / f'{image.get("file_name")}'
        if not path.exists():
            Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(path)
    (folder / name).write_text(json.dumps(data))
    return folder / name
