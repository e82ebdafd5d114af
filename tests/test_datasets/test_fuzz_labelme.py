# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Good LabelMe files, spoiled at random, and shapes of every kind: each is read as LabelMe reads it, or it is named."""

import base64
import io
import json
import math
import re

import cv2
import numpy as np
import pytest
from coco_data import SIZE
from fuzzing import PROFILES, byte_edits, edit_bytes, quiet_folder, spoiled
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

from mmpanet.datasets import convert_labelme


def labelme_file():
    rectangle = dict(label='nut', points=[[34, 22], [56, 40]], shape_type='rectangle', group_id=None, flags={})
    polygon = dict(label='bolt', points=[[4, 5], [24, 5], [24, 19]], shape_type='polygon', group_id=1, flags={})
    patch = cv2.imencode('.png', np.ones((4, 6), np.uint8))[1].tobytes()
    pasted = dict(
        label='nut', points=[[1, 30], [6, 33]], shape_type='mask', group_id=None, mask=base64.b64encode(patch).decode()
    )
    circle = dict(label='bolt', points=[[30, 10], [33, 10]], shape_type='circle', group_id=None)
    return dict(
        version='5.5.0',
        flags={},
        shapes=[rectangle, polygon, pasted, circle],
        imagePath='a.png',
        imageData=base64.b64encode(picture()).decode(),
        imageHeight=SIZE[0],
        imageWidth=SIZE[1],
    )


def picture():
    return cv2.imencode('.png', np.full((*SIZE, 3), 90, np.uint8))[1].tobytes()


@pytest.mark.parametrize('profile', PROFILES)
def test_labelme_files(profile):
    data = spoiled(labelme_file())
    codings = st.sampled_from(['utf-8', 'utf-8', 'utf-8-sig', 'gb18030', 'utf-16'])
    profile(given(data=data, coding=codings, beside=st.booleans())(labelme_file_is_right_or_named))()


def labelme_file_is_right_or_named(data, coding, beside):
    text = json.dumps(data, ensure_ascii=False).encode(coding, 'replace')
    converted_or_named(text, data, beside)


@pytest.mark.parametrize('profile', PROFILES)
def test_bytes_of_labelme_files(profile):
    profile(given(edits=byte_edits())(damaged_labelme_file_is_named))()


def damaged_labelme_file_is_named(edits):
    converted_or_named(edit_bytes(json.dumps(labelme_file()).encode(), edits), None, True)


def write_source(folder, content, beside):
    """Two good files and ``a.json``, with its image or without."""
    (folder / 'in').mkdir()
    for name in 'bc':
        (folder / 'in' / f'{name}.png').write_bytes(picture())
        (folder / 'in' / f'{name}.json').write_text(json.dumps(dict(labelme_file(), imagePath=f'{name}.png')))
    (folder / 'in' / 'a.json').write_bytes(content)
    if beside:
        (folder / 'in' / 'a.png').write_bytes(picture())


def converted_or_named(content, data, beside):
    with quiet_folder() as folder:
        write_source(folder, content, beside)
        converted = convert_labelme(folder / 'in', folder / 'out', val_fraction=0.34)
        named = [line for line in converted.problems if line.startswith('a.json: ') and '\n' not in line]
        assert len(named) == len(converted.problems)
        total = sum(images for images, _ in converted.counts.values())
        kept = sum(objects for _, objects in converted.counts.values()) - 8  # of the two good files
        if total == 2:
            assert named and kept == 0
            return
        assert total == 3
        if data is None:
            return
        groups = {
            (str(shape['label']), i if shape.get('group_id') is None else str(shape['group_id']))
            for i, shape in enumerate(data['shapes'])
        }
        assert len(groups) - len(named) <= kept <= len(groups)
        for split in ('train', 'val'):
            coco = COCO(str(folder / 'out' / f'{split}.json'))
            for one in coco.anns.values():
                assert one['id'] >= 1 and coco.annToMask(one).sum() == one['area'] > 0


# Shapes of every kind, read as LabelMe reads and draws them

KINDS = ('polygon', 'rectangle', 'oriented_rectangle', 'circle', 'mask', 'point', 'points', 'line', 'linestrip')
WITHOUT_AREA = KINDS[5:]
LABELS = ('bolt', 'nut', '螺栓', ' bolt', 3, 3.5)
HEADS = ('', 'data:image/png;base64,', 'data:;base64,\n')


def point():
    return st.tuples(st.floats(-20, 90, width=32), st.floats(-20, 70, width=32)).map(list)


@st.composite
def shapes(draw):
    kind = draw(st.sampled_from(KINDS))
    count = dict(polygon=3, rectangle=2, oriented_rectangle=4, circle=2, point=1, line=2).get(kind, 3)
    points = [draw(point()) for _ in range(count)]
    shape = dict(label=draw(st.sampled_from(LABELS)), points=points, shape_type=kind)
    shape['group_id'] = draw(st.sampled_from([None, None, 1, 2]))
    if kind == 'oriented_rectangle':
        (x, y), (dx, dy) = points[0], draw(st.tuples(st.integers(-30, 30), st.integers(-30, 30)))
        shape['points'] = [[x, y], [x + dx, y + dy], [x + dx - dy, y + dy + dx], [x - dy, y + dx]]
    if kind == 'mask':
        left, top = draw(st.tuples(st.integers(0, SIZE[1] - 1), st.integers(0, SIZE[0] - 1)))
        width, height = draw(st.tuples(st.integers(1, SIZE[1] - left), st.integers(1, SIZE[0] - top)))
        patch = np.random.RandomState(draw(st.integers(0, 99))).rand(height, width) < 0.5
        shape['points'] = [[left, top], [left + width - 1, top + height - 1]]
        shape['mask'] = base64.b64encode(cv2.imencode('.png', patch.astype(np.uint8))[1].tobytes()).decode()
    if kind == 'polygon' and draw(st.booleans()):
        del shape['shape_type']  # files of LabelMe 3
    return shape


def mask_of_labelme(shape):
    """As ``labelme.utils.shape_to_mask`` draws it; (H, W) bool."""
    kind, points = shape.get('shape_type', 'polygon'), shape['points']
    if kind == 'mask':
        mask = np.zeros(SIZE, bool)
        patch = np.array(Image.open(io.BytesIO(base64.b64decode(shape['mask'])))) > 0
        (left, top), (right, bottom) = np.array(points).astype(int)
        mask[top : bottom + 1, left : right + 1] = patch
        return mask
    image = Image.new('L', SIZE[::-1])
    draw = ImageDraw.Draw(image)
    if kind == 'circle':
        (x, y), (rim_x, rim_y) = points
        radius = math.hypot(rim_x - x, rim_y - y)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    elif kind == 'rectangle':
        draw.rectangle([*np.min(points, axis=0), *np.max(points, axis=0)], outline=1, fill=1)
    else:
        draw.polygon([tuple(point) for point in points], outline=1, fill=1)
        draw.line([tuple(point) for point in [*points, points[0]]], fill=1)  # Pillow skips thin parts of a polygon
    return np.array(image) > 0


def assert_same_but_for_the_edge(mask, other):
    """Pillow draws the outline too, and pycocotools rounds another way: up to two pixels."""
    kernel = np.ones((5, 5), np.uint8)
    assert not (mask & (cv2.dilate(other.astype(np.uint8), kernel) == 0)).any()
    inner = cv2.erode(other.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    assert not (inner & ~mask).any()


@pytest.mark.parametrize('profile', PROFILES)
def test_shapes_of_labelme(profile):
    files = st.fixed_dictionaries(
        dict(
            shapes=st.lists(shapes(), max_size=6),
            image_path=st.sampled_from(['a.png', 'D:\\data\\a.png', '/home/x/a.png', '..\\a.png', 'sub/A.PNG']),
            height=st.sampled_from([48, 48.0, '48', None, 47]),
            width=st.sampled_from([64, 64.0, '64', 0]),
            head=st.sampled_from([None, *HEADS]),
            wrapped=st.booleans(),
            coding=st.sampled_from(['utf-8', 'utf-8-sig', 'gb18030', 'utf-16']),
            beside=st.booleans(),
        )
    )
    profile(given(file=files)(labelme_shapes_are_read_as_by_labelme))()


def labelme_shapes_are_read_as_by_labelme(file):
    encode = base64.encodebytes if file['wrapped'] else base64.b64encode
    data = dict(
        shapes=file['shapes'],
        imagePath=file['image_path'],
        imageHeight=file['height'],
        imageWidth=file['width'],
        imageData=None if file['head'] is None else file['head'] + encode(picture()).decode(),
    )
    with quiet_folder() as folder:
        write_source(folder, json.dumps(data, ensure_ascii=False).encode(file['coding']), file['beside'])
        converted = convert_labelme(folder / 'in', folder / 'out', val_fraction=0.34)
        assert all(line.startswith('a.json: ') and '\n' not in line for line in converted.problems)
        images = {}
        for split in ('train', 'val'):
            coco = COCO(str(folder / 'out' / f'{split}.json'))
            images.update({image['file_name']: (coco, image) for image in coco.imgs.values()})
        if file['height'] == 47 or not (file['beside'] or data['imageData']):
            assert len(converted.problems) == 1 and sorted(images) == ['b.png', 'c.png']
            assert re.search('annotated at 47|no image ', converted.problems[0])
            return
        coco, image = images['a.png']
        left_out = {int(re.search(r'shapes\[(\d+)\]', line)[1]) for line in converted.problems}
        groups = {}
        for i, shape in enumerate(data['shapes']):
            kind = shape.get('shape_type', 'polygon')
            assert i in left_out or kind not in WITHOUT_AREA
            if kind not in WITHOUT_AREA and i in left_out:  # it covers no pixel
                assert_same_but_for_the_edge(np.zeros(SIZE, bool), mask_of_labelme(shape))
            if i not in left_out:
                group = i if shape['group_id'] is None else f'group {shape["group_id"]}'
                groups.setdefault((str(shape['label']), group), []).append(shape)
        objects = [coco.anns[number] for number in sorted(coco.getAnnIds(imgIds=image['id']))]
        assert [coco.cats[one['category_id']]['name'] for one in objects] == [label for label, _ in groups]
        for one, members in zip(objects, groups.values()):
            drawn = np.any([mask_of_labelme(shape) for shape in members], axis=0)
            assert_same_but_for_the_edge(coco.annToMask(one) > 0, drawn)
            assert coco.annToMask(one).sum() == one['area'] > 0 and one['iscrowd'] == 0
