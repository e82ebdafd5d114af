# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Boxes that contradict their masks, images that are named twice or not found, compared with pycocotools and OpenCV."""

import json

import cv2
import numpy as np
import pytest
from coco_data import CLASSES, SIZE, make_coco, write_coco
from PIL import Image
from pycocotools import mask as mask_utils

from mmpanet.datasets.checks import check_annotations
from mmpanet.datasets.checks.rle import box_around


@pytest.mark.parametrize('share', [0.001, 0.02, 0.5, 1.0])
@pytest.mark.parametrize('compressed', [False, True])
def test_box_around_a_mask_against_pycocotools(share, compressed):
    random = np.random.RandomState(0)
    for _ in range(50):
        height, width = random.randint(1, 40, 2)
        mask = (random.rand(height, width) < share).astype(np.uint8)
        rle = mask_utils.encode(np.asfortranarray(mask))
        counts = rle['counts'].decode()
        if not compressed:
            changes = np.flatnonzero(np.diff(np.r_[0, mask.ravel(order='F'), 2]))
            counts = np.diff(np.r_[0, changes]).tolist()
        around = box_around(dict(size=[int(height), int(width)], counts=counts))
        if not mask.any():
            assert around is None
            continue
        x, y, w, h = mask_utils.toBbox(rle)
        assert around == [x, y, x + w, y + h]


def test_box_around_polygons():
    assert box_around([[3, 4, 10, 4, 10, 9], [1, 5, 2, 6, 2, 20]]) == [1, 4, 10, 20]


def check(tmp_path, data, **kwargs):
    findings = check_annotations(write_coco(tmp_path, data), CLASSES, masks=True, **kwargs)
    return [fault.partition(': ')[2] for fault in findings.faults], [
        note.partition(': ')[2] for note in findings.left_out
    ]


def to_corners(one):
    x, y, w, h = one['bbox']
    one['bbox'] = [x, y, x + w, y + h]


def test_boxes_of_corners_are_refused(tmp_path):
    data = make_coco()
    for one in data['annotations']:
        to_corners(one)
    faults, _ = check(tmp_path, data)
    assert faults == [
        'annotations[0] (id 1): bbox [4, 5, 24, 19], and [4, 5, 20, 14] around its segmentation; all boxes are '
        'x1, y1, x2, y2, and COCO format takes [x, y, width, height]'
    ]


def test_some_wrong_boxes_are_counted(tmp_path):
    data = make_coco()
    to_corners(data['annotations'][0])
    data['annotations'][3]['bbox'][0] -= 10
    faults, notes = check(tmp_path, data)
    assert faults == []
    assert notes == [
        'boxes: 2 of 6 are not those around their segmentation; the first is annotations[0] (id 1): bbox '
        '[4, 5, 24, 19], and [4, 5, 20, 14] around its segmentation'
    ]


@pytest.mark.parametrize('side', ['height', 'width'])
@pytest.mark.parametrize('segmentation', [None, 'missing', [], [None], [[]], dict(counts=None)])
def test_masks_of_an_image_without_a_size_are_not_looked_at(tmp_path, side, segmentation):
    data = make_coco()
    del data['images'][0][side]
    data['annotations'][0]['segmentation'] = segmentation
    if segmentation == 'missing':
        del data['annotations'][0]['segmentation']
    faults, _ = check(tmp_path, data)
    assert len(faults) == 1 and f'{side} is None' in faults[0]


def test_boxes_that_are_a_little_larger_are_right(tmp_path):
    """Programs round, and COCO's own boxes and polygons differ by a pixel."""
    data = make_coco()
    for one in data['annotations']:
        x, y, w, h = one['bbox']
        one['bbox'] = [x - 0.9, y - 1, w + 1.5, h + 2]
    assert check(tmp_path, data) == ([], [])


def test_objects_at_the_origin_decide_nothing(tmp_path):
    data = make_coco(1)
    polygon = [[0, 0, 20, 0, 20, 14, 0, 14]]
    data['annotations'] = [dict(data['annotations'][0], bbox=[0, 0, 20, 14], segmentation=polygon)]
    assert check(tmp_path, data)[0] == []


def test_two_images_of_one_file_are_counted(tmp_path):
    data = make_coco()
    data['images'][2]['file_name'] = '1.png'
    faults, notes = check(tmp_path, data, image_folder=tmp_path / 'images')
    assert faults == []
    assert len(notes) == 1 and notes[0].startswith('images: 1 of 3 have the file_name of another one')
    assert notes[0].endswith("the first is '1.png' (id 3 and 1)")


@pytest.mark.parametrize('kind, suffix', [('TGA', '.png'), ('PCX', '.pcx'), ('ICO', '.ico'), ('GIF', '.gif')])
def test_formats_that_opencv_may_not_read(tmp_path, kind, suffix):
    data = make_coco(1)
    data['images'][0]['file_name'] = f'1{suffix}'
    write_coco(tmp_path, dict(data, images=[]))
    Image.new('RGB', SIZE[::-1], (90, 0, 0)).save(tmp_path / 'images' / f'1{suffix}', kind)
    (tmp_path / 'train.json').write_text(json.dumps(data))
    findings = check_annotations(tmp_path / 'train.json', CLASSES, tmp_path / 'images')
    image = cv2.imread(str(tmp_path / 'images' / f'1{suffix}'))
    assert bool(findings.faults) == (image is None or image.shape[:2] != SIZE)


MISSING = [
    ('/home/somebody/1.png', "; '1.png' is there"),
    ('train/1.png', "; '1.png' is there"),
    ('1.PNG', "; '1.png' is there"),
    ('train\\1.png', '; it has backslashes, which only Windows reads as folders'),
    ('Mu\u0308ller.png', "; 'M\u00fcller.png' is there"),
    ('7.png', ''),
]


@pytest.mark.parametrize('name, hint', MISSING)
def test_images_that_are_not_there(tmp_path, name, hint):
    data = make_coco()
    write_coco(tmp_path, data)
    Image.new('RGB', SIZE[::-1]).save(tmp_path / 'images' / 'M\u00fcller.png')
    data['images'][0]['file_name'] = name
    (tmp_path / 'train.json').write_text(json.dumps(data))
    faults = check_annotations(tmp_path / 'train.json', CLASSES, tmp_path / 'images').faults
    assert len(faults) == 1 and faults[0].endswith(f'(data_root, data_prefix.img){hint}')


IDS = [
    (lambda data: data['images'][0].update(id='1'), "images[0]: id is '1', it takes a whole number"),
    (lambda data: data['images'][0].update(id=None), 'images[0]: id is None, it takes a whole number'),
    (lambda data: data['categories'][1].update(id='2'), "categories[1]: id is '2', it takes a whole number"),
    (lambda data: data['categories'][1].update(name=2), 'categories[1]: name is 2, it takes a string'),
    (lambda data: data['categories'][1].pop('name'), "categories[1] is {'id': 2}, it takes an object with id"),
    (lambda data: data['images'].insert(0, 7), 'images[0] is 7, it takes an object with id'),
]


@pytest.mark.parametrize('spoil, message', IDS)
def test_the_id_itself_is_shown(tmp_path, spoil, message):
    data = make_coco()
    spoil(data)
    (tmp_path / 'train.json').write_text(json.dumps(data))
    faults = check_annotations(tmp_path / 'train.json', CLASSES).faults
    assert faults[0].partition(': ')[2].startswith(message)
