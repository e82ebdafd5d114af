# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import base64
import json
import math
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from repository import tool_path

from mmdet.datasets import CocoDataset
from mmpanet.datasets import convert_labelme, convert_masks
from mmpanet.utils.errors import ConfigError, DataError

TOOL = tool_path('labelme')
SIZE = (60, 80)
TRIANGLE = [[10.5, 8.25], [40, 12], [22.75, 41.5]]


def shape(label, points, kind='polygon', **more):
    return dict(label=label, points=points, shape_type=kind, group_id=None, flags={}, **more)


def png(array):
    return cv2.imencode('.png', array)[1].tobytes()


def in_base64(array):
    return base64.b64encode(png(array)).decode()


def picture(seed=0):
    return np.random.RandomState(seed).randint(0, 255, (*SIZE, 3), dtype=np.uint8)


def add(source, name, shapes, image=True, **more):
    """A JSON file as LabelMe writes it, and its image."""
    path = source / f'{name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    if image:
        path.with_suffix('.png').write_bytes(png(picture()))
    data = dict(
        version='5.5.0',
        flags={},
        shapes=shapes,
        imagePath=f'{path.stem}.png',
        imageData=None,
        imageHeight=SIZE[0],
        imageWidth=SIZE[1],
    )
    path.write_text(json.dumps(dict(data, **more)))


@pytest.fixture
def source(tmp_path):
    source = tmp_path / 'labelled'
    add(source, 'triangle', [shape('cat', TRIANGLE)])
    add(source, 'deep/er/box', [shape('dog', [[50, 30], [20, 10]], 'rectangle')])
    add(source, 'circle', [shape('cat', [[40, 30], [40, 50]], 'circle')])
    add(source, 'nothing', [])
    return source


def convert(source, tmp_path, **kwargs):
    converted = convert_labelme(source, tmp_path / 'out', **dict(dict(val_fraction=0.25), **kwargs))
    splits = [COCO(str(tmp_path / 'out' / f'{split}.json')) for split in ('train', 'val')]
    return converted, {
        image['file_name']: (coco, image, coco.imgToAnns[image['id']])
        for coco in splits
        for image in coco.imgs.values()
    }


def test_shapes_of_every_kind(source, tmp_path):
    patch = np.zeros((6, 9), np.uint8)
    patch[1:, 2:] = 1
    add(source, 'mask', [shape('dog', [[30, 20], [38, 25]], 'mask', mask=in_base64(patch))])
    add(source, 'turned', [shape('dog', [[40, 10], [60, 30], [40, 50], [20, 30]], 'oriented_rectangle')])
    converted, images = convert(source, tmp_path)
    assert converted.problems == [] and converted.classes == ('cat', 'dog')
    assert sum(number for number, _ in converted.counts.values()) == 6
    assert set(images) == {'triangle.png', 'deep/er/box.png', 'circle.png', 'nothing.png', 'mask.png', 'turned.png'}
    areas = {}
    for name, (coco, image, annotations) in images.items():
        assert (tmp_path / 'out' / 'images' / name).read_bytes() == png(picture())
        assert (image['height'], image['width']) == SIZE
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            assert annotation['area'] == mask.sum()
            rows, columns = np.nonzero(mask)
            x, y, w, h = annotation['bbox']
            assert (x, y, x + w, y + h) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            areas[name] = annotation['area']
            assert coco.cats[annotation['category_id']]['name'] == (
                'cat' if name[0] in 'tc' and 'turned' not in name else 'dog'
            )
    assert images['nothing.png'][2] == []
    # against the formulas of the plane
    assert areas['deep/er/box.png'] == 30 * 20 and areas['mask.png'] == patch.sum()
    assert areas['circle.png'] == pytest.approx(math.pi * 20**2, rel=0.01)
    assert areas['turned.png'] == pytest.approx(800, rel=0.03)
    (x1, y1), (x2, y2), (x3, y3) = TRIANGLE
    triangle = abs((x2 - x1) * (y3 - y1) - (x3 - x1) * (y2 - y1)) / 2
    assert areas['triangle.png'] == pytest.approx(triangle, rel=0.03)
    # polygons stay what was drawn
    assert images['triangle.png'][2][0]['segmentation'] == [[c for point in TRIANGLE for c in point]]


def test_polygons_and_masks_of_them_are_the_same_dataset(source, tmp_path):
    """Two converters, one truth: what LabelMe's polygons cover, drawn as mask images by pycocotools."""
    add(source, 'overlapping', [shape('cat', TRIANGLE), shape('cat', [[15, 10], [45, 35]], 'rectangle')])
    _, from_polygons = convert(source, tmp_path)
    for name, (_, _, annotations) in from_polygons.items():
        folder = tmp_path / 'masks' / Path(name).with_suffix('')
        folder.mkdir(parents=True)
        for i, annotation in enumerate(annotations):
            rle = mask_utils.merge(mask_utils.frPyObjects(annotation['segmentation'], *SIZE))
            category = folder / ('cat', 'dog')[annotation['category_id'] - 1]
            category.mkdir(exist_ok=True)
            cv2.imwrite(str(category / f'{i}.png'), mask_utils.decode(rle) * 255)
    converted = convert_masks(
        tmp_path / 'out' / 'images',
        tmp_path / 'masks',
        tmp_path / 'other',
        'files',
        classes=('cat', 'dog'),
        val_fraction=0.2,
    )
    assert converted.problems == []
    found = 0
    for split in ('train', 'val'):
        coco = COCO(str(tmp_path / 'other' / f'{split}.json'))
        for image in coco.imgs.values():
            ours, annotations = coco.imgToAnns[image['id']], from_polygons[image['file_name']][2]
            assert [(a['area'], a['bbox'], a['category_id']) for a in ours] == [
                (a['area'], a['bbox'], a['category_id']) for a in annotations
            ]
            found += len(ours)
    assert found == 5


def test_ids(source, tmp_path):
    convert(source, tmp_path, classes=['dog', 'cat'])
    for split in ('train', 'val'):
        data = json.loads((tmp_path / 'out' / f'{split}.json').read_text())
        assert [image['id'] for image in data['images']] == list(range(1, len(data['images']) + 1))
        assert [a['id'] for a in data['annotations']] == list(range(1, len(data['annotations']) + 1))
        assert data['categories'] == [dict(id=1, name='dog'), dict(id=2, name='cat')]


def test_mmdet_reads_it(source, tmp_path):
    convert(source, tmp_path)
    dataset = CocoDataset(
        ann_file='train.json',
        data_root=str(tmp_path / 'out'),
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('cat', 'dog')),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)],
    )
    assert len(dataset) == 3
    for i in range(3):
        sample = dataset[i]
        assert sample['img'].shape == (*SIZE, 3)
        assert len(sample['gt_masks']) == len(sample['gt_bboxes_labels'])


def test_outlines_far_beyond_their_image_become_masks(tmp_path):
    """Training refuses polygons with a point three widths away."""
    far = [[1, 2], [240, 30], [4, 50]]
    source = tmp_path / 'labelled'
    add(source, 'far', [shape('cat', far), shape('cat', TRIANGLE)])
    add(source, 'nothing', [])
    _, found = convert(source, tmp_path, val_fraction=0.5)
    coco, image, objects = found['far.png']
    assert [type(one['segmentation']) for one in objects] == [dict, list]
    drawn = mask_utils.frPyObjects([np.ravel(far).astype(float).tolist()], image['height'], image['width'])
    assert np.array_equal(coco.annToMask(objects[0]), mask_utils.decode(drawn)[..., 0])


def test_groups_are_one_object(tmp_path):
    patch = np.ones((10, 10), np.uint8)
    add(
        tmp_path / 'in',
        'a',
        [
            dict(shape('cat', [[10, 10], [20, 20]], 'rectangle'), group_id=0),
            dict(shape('dog', [[60, 10], [70, 20]], 'rectangle'), group_id=0),
            dict(shape('cat', [[15, 10], [30, 20]], 'rectangle'), group_id=0),
            dict(shape('cat', [[40, 40], [50, 50]], 'rectangle'), group_id=2),
            dict(shape('cat', [[45, 40], [54, 49]], 'mask', mask=in_base64(patch)), group_id=2),
            shape('cat', [[0, 0], [4, 4]], 'rectangle'),
            shape('cat', [[0, 0], [4, 4]], 'rectangle'),
        ],
    )
    add(tmp_path / 'in', 'b', [])
    _, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    annotations = images['a.png'][2]
    assert [(a['category_id'], a['area']) for a in annotations] == [(1, 200), (2, 100), (1, 150), (1, 16), (1, 16)]
    assert len(annotations[0]['segmentation']) == 2
    assert isinstance(annotations[2]['segmentation'], dict)


def test_image_in_the_file(tmp_path):
    add(
        tmp_path / 'in',
        'a',
        [shape('cat', TRIANGLE)],
        image=False,
        imageData=in_base64(picture(3)),
        imagePath='..\\photos\\a.png',
    )
    add(tmp_path / 'in', 'b', [])
    _, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture(3))
    assert len(images['a.png'][2]) == 1


def test_image_elsewhere(tmp_path):
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos' / 'x.png').write_bytes(png(picture(3)))
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], image=False, imagePath='../photos/x.png')
    _, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert set(images) == {'a.png', 'b.png'}


def test_an_image_elsewhere_that_has_changed_is_converted_again(tmp_path):
    test_image_elsewhere(tmp_path)
    assert convert_labelme(tmp_path / 'in', tmp_path / 'out', val_fraction=0.5) is None
    (tmp_path / 'photos' / 'x.png').write_bytes(png(picture(4)))
    with pytest.raises(DataError, match='holds another dataset'):
        convert_labelme(tmp_path / 'in', tmp_path / 'out', val_fraction=0.5)
    converted = convert_labelme(tmp_path / 'in', tmp_path / 'out', val_fraction=0.5, force=True)
    assert converted and (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture(4))


def test_an_image_in_the_folder_to_write_is_not_removed(tmp_path):
    """Such as that of an earlier conversion, whose images were annotated again."""
    test_image_elsewhere(tmp_path)
    for name in 'ab':
        add(tmp_path / 'again', name, [shape('cat', TRIANGLE)], image=False, imagePath='../out/images/a.png')
    with pytest.raises(ConfigError, match=r"out' holds a\.png, which a\.json names as its image"):
        convert_labelme(tmp_path / 'again', tmp_path / 'out', val_fraction=0.5, force=True)
    assert (tmp_path / 'out' / 'images' / 'b.png').is_file()


def test_turned_photo(tmp_path):
    """EXIF says that the photo is to be turned: LabelMe shows it so, and MMDetection loads it so."""
    from PIL import Image

    for name in 'ab':
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], image=False, imagePath=f'{name}.jpg')
        photo = Image.fromarray(np.rot90(picture()).copy())
        exif = photo.getexif()
        exif[0x0112] = 6  # a quarter turn to the right
        photo.save(tmp_path / 'in' / f'{name}.jpg', exif=exif)
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.problems == []
    assert (images['a.jpg'][1]['height'], images['a.jpg'][1]['width']) == SIZE


def set_key(**changes):
    def spoil(path):
        path.write_text(json.dumps(dict(json.loads(path.read_text()), **changes)))

    return spoil


def set_shape(**changes):
    return set_key(shapes=[dict(shape('cat', TRIANGLE), **changes)])


BAD_FILES = [
    (lambda path: path.write_text('{"shapes": ['), 'triangle.json: not JSON'),
    (set_key(shapes=None), "triangle.json: not a LabelMe file, it has no list 'shapes'"),
    (set_key(shapes=[dict(points=TRIANGLE)]), "triangle.json: shapes[0] has no 'label'"),
    (set_key(shapes=[dict(label=None, points=TRIANGLE)]), "triangle.json: shapes[0] has no 'label'"),
    (set_key(shapes=[dict(label=True, points=TRIANGLE)]), 'triangle.json: shapes[0]: label is True, it takes a text'),
    (set_key(shapes=[dict(label='', points=TRIANGLE)]), "triangle.json: shapes[0]: label is '', it takes a text"),
    (
        set_shape(shape_type='mask', points=TRIANGLE[:2], mask=in_base64(np.full((3, 3, 3), 255, np.uint8))),
        "triangle.json: shapes[0] ('cat'): 'mask' has 3 channels, it takes a PNG with one",
    ),
    (set_key(imagePath=None), "triangle.json: has no 'imagePath'"),
    (set_key(imagePath='a.pdf'), "triangle.json: imagePath is 'a.pdf', it takes .jpg"),
    (set_key(imagePath='gone.png'), "triangle.json: no image 'gone.png' beside it, and no 'imageData' in it"),
    (set_key(imagePath='gone.png', imageData='%%'), "triangle.json: 'imageData' is not base64"),
    (set_key(imageHeight=61), "triangle.json: annotated at 61 x 80 (height x width), image 'triangle.png' is 60 x 80"),
    (
        lambda path: path.with_suffix('.png').write_bytes(b'x'),
        "triangle.json: image 'triangle.png': not readable as an image",
    ),
    (
        lambda path: path.with_suffix('.png').write_bytes(png(np.zeros(SIZE, np.uint16))),
        "triangle.json: image 'triangle.png': holds 16 bits per channel, not 8",
    ),
    (set_shape(label='cow'), "triangle.json: shapes[0] ('cow'): no such class, there are cat, dog"),
    (set_shape(shape_type='blob'), "triangle.json: shapes[0] ('cat'): shape_type is 'blob', which is not known"),
    (set_shape(points=TRIANGLE[:2]), "triangle.json: shapes[0] ('cat'): a polygon of 2 points, it takes 3 or more"),
    (
        set_shape(points=[[1, 2], [3, None], [4, 5]]),
        "triangle.json: shapes[0] ('cat'): points of a polygon are pairs of numbers",
    ),
    (
        set_shape(points=[[1, 2], [3], [4, 5]]),
        "triangle.json: shapes[0] ('cat'): points of a polygon are pairs of numbers",
    ),
    (
        set_shape(points=[[1, 2], [3, 1e12], [4, 5]]),
        "triangle.json: shapes[0] ('cat'): a point of it lies far beyond its image of 60 x 80 (height x "
        'width): [3.0, 1000000000000.0]',
    ),
    (
        set_shape(shape_type='circle', points=[[1, 2], [1e300, 5]]),
        "triangle.json: shapes[0] ('cat'): a point of it lies far",
    ),
    (set_shape(shape_type='rectangle'), "triangle.json: shapes[0] ('cat'): a rectangle of 3 points, it takes 2 or 4"),
    (set_shape(shape_type='circle'), "triangle.json: shapes[0] ('cat'): a circle of 3 points, it takes 2"),
    (set_shape(shape_type='mask', points=TRIANGLE[:2]), "triangle.json: shapes[0] ('cat'): 'mask' is not a PNG"),
    (
        set_shape(shape_type='mask', points=[[75, 0], [79, 9]], mask=in_base64(np.ones((10, 10), np.uint8))),
        "triangle.json: shapes[0] ('cat'): 'mask' of 10 x 10 at x 75, y 0 does not lie in its image of 60 x 80",
    ),
]


@pytest.mark.parametrize('spoil, problem', BAD_FILES, ids=[problem.split(': ', 1)[1] for _, problem in BAD_FILES])
def test_bad_file_is_named(source, tmp_path, spoil, problem):
    spoil(source / 'triangle.json')
    converted, images = convert(source, tmp_path, classes=('cat', 'dog'))
    assert len(converted.problems) == 1 and converted.problems[0].startswith(problem)
    assert 'triangle.png' not in images and len(images) == 3
    with pytest.raises(DataError) as error:
        convert(source, tmp_path / 'strict', classes=('cat', 'dog'), on_error='raise')
    assert str(error.value).startswith(problem)
    assert not (tmp_path / 'strict').exists() or not any((tmp_path / 'strict').iterdir())


@pytest.mark.parametrize(
    'changes, problem',
    [
        (dict(shape_type='point', points=[[3, 4]]), 'a point has no area'),
        (dict(shape_type='linestrip'), 'a linestrip has no area'),
        (dict(points=[[200, 200], [220, 200], [220, 220]]), 'a polygon that covers no pixel'),
    ],
)
def test_shape_without_area_is_left_out_alone(source, tmp_path, changes, problem):
    set_key(shapes=[dict(shape('cat', TRIANGLE), **changes), shape('dog', TRIANGLE)])(source / 'triangle.json')
    converted, images = convert(source, tmp_path)
    assert converted.problems == [f"triangle.json: shapes[0] ('cat'): {problem}"]
    assert [a['category_id'] for a in images['triangle.png'][2]] == [2]


@pytest.mark.parametrize(
    'text',
    [
        base64.encodebytes(png(picture(3))).decode(),  # lines of 76 characters
        base64.encodebytes(png(picture(3))).decode().replace('\n', '\r\n'),
        'data:image/png;base64,' + in_base64(picture(3)),
        'data:image/png;base64,\n' + in_base64(picture(3)) + '\n',
    ],
)
def test_image_data_of_other_programs(tmp_path, text):
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], image=False, imageData=text)
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.problems == [] and len(images['a.png'][2]) == 1
    assert (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture(3))


@pytest.mark.parametrize(
    'image_path',
    [
        'D:\\data\\a.png',
        '/home/somebody/data/a.png',
        '..\\..\\pictures\\a.png',
        'C:/x/a.png',
        'sub/A.PNG',
        '\\\\nas\\x\\a.png',
    ],
)
@pytest.mark.parametrize('is_copied', [False, True])
def test_paths_of_another_computer(tmp_path, image_path, is_copied):
    jpeg = cv2.imencode('.jpg', picture())[1].tobytes()  # as LabelMe copies a TIFF
    data = base64.b64encode(jpeg).decode() if is_copied else None
    for name in 'ab':
        path = image_path.replace('a.png', f'{name}.png').replace('A.PNG', f'{name.upper()}.PNG')
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], imagePath=path, imageData=data)
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.problems == [] and len(images['a.png'][2]) == 1
    assert (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture())  # the file beside it


def test_the_copy_in_the_file_where_the_image_has_changed(tmp_path):
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], imageData=in_base64(picture(3)))
        (tmp_path / 'in' / f'{name}.png').write_bytes(png(np.zeros((6, 8, 3), np.uint8)))
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.problems == []
    assert (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture(3))


def test_the_copy_in_the_file_where_another_image_has_taken_the_place_of_the_image(tmp_path):
    """LabelMe shows the copy, so that its shapes are of the copy."""
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('cat', TRIANGLE)], imageData=in_base64(picture(3)))
        (tmp_path / 'in' / f'{name}.png').write_bytes(png(np.full((*SIZE, 3), 30, np.uint8)))
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.problems == []
    assert (tmp_path / 'out' / 'images' / 'a.png').read_bytes() == png(picture(3))


def test_the_label_that_labelme_ignores(source, tmp_path):
    """``labelme2coco.py`` of LabelMe's examples leaves out what is called ``__ignore__``."""
    set_key(shapes=[shape('cat', TRIANGLE), shape('__ignore__', TRIANGLE)])(source / 'triangle.json')
    converted, images = convert(source, tmp_path)
    assert converted.classes == ('cat', 'dog') and converted.problems == []
    assert converted.notes == ["1 shapes '__ignore__' are left out (ignore)"]
    assert len(images['triangle.png'][2]) == 1
    converted, images = convert(source, tmp_path / 'as a class', classes=('cat', 'dog', '__ignore__'))
    assert len(images['triangle.png'][2]) == 2 and converted.notes == []


def test_an_image_that_two_files_name(source, tmp_path):
    (source / 'triangle (1).json').write_bytes((source / 'triangle.json').read_bytes())
    converted, images = convert(source, tmp_path)
    assert len(images) == 5
    assert converted.notes == [
        '1 images are named by several JSON files, and each file becomes an image of its own; the first is that of '
        'triangle (1).json and triangle.json'
    ]


def test_two_files_never_become_one_image(source, tmp_path):
    (source / 'triangle.JSON').write_bytes((source / 'triangle.json').read_bytes())
    converted, images = convert(source, tmp_path)
    assert len(images) == 4 == len(list((tmp_path / 'out' / 'images').rglob('*.png')))
    assert converted.problems == [
        'triangle.json: its image would be written as triangle.png, as that of triangle.JSON is'
    ]


@pytest.mark.skipif(sys.platform != 'linux', reason='other file systems take no such names')
def test_names_that_are_not_utf_8(source, tmp_path):
    """As unpacked from an archive that was made on Windows."""
    os.rename(source / 'triangle.json', os.fsencode(source) + b'/\xfc.json')
    converted, images = convert(source, tmp_path)
    assert converted.problems == [] and len(images['\udcfc.png'][2]) == 1
    assert os.path.isfile(os.fsencode(tmp_path) + b'/out/images/\xfc.png')


@pytest.mark.parametrize('coding, note', [('utf-8', 0), ('utf-8-sig', 0), ('utf-16', 0), ('gb18030', 1)])
def test_encodings(tmp_path, coding, note):
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('螺栓', TRIANGLE)])
        path = tmp_path / 'in' / f'{name}.json'
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding=coding)
    converted, _ = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.classes == ('螺栓',) and converted.problems == []
    assert len(converted.notes) == note
    assert all('2 files are not UTF-8 and were read as GB18030' in line for line in converted.notes)


def test_encoding_that_is_given(tmp_path):
    for name in 'ab':
        add(tmp_path / 'in', name, [shape('Schlüssel', TRIANGLE)])
        path = tmp_path / 'in' / f'{name}.json'
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False), encoding='cp1252')
    converted, _ = convert(tmp_path / 'in', tmp_path, val_fraction=0.5, encoding='cp1252')
    assert converted.classes == ('Schlüssel',) and converted.notes == []


@pytest.mark.parametrize('label, name', [(1, '1'), (0, '0'), (1.5, '1.5')])
def test_labels_that_are_numbers(tmp_path, label, name):
    for file in 'ab':
        add(tmp_path / 'in', file, [shape(label, TRIANGLE)])
    converted, _ = convert(tmp_path / 'in', tmp_path, val_fraction=0.5)
    assert converted.classes == (name,) and sum(count for _, count in converted.counts.values()) == 2


def test_sizes_that_are_no_integers(tmp_path):
    for file, sides in (('a', ('60', '80')), ('b', (60.0, 80.0)), ('c', (None, 0))):
        add(tmp_path / 'in', file, [shape('cat', TRIANGLE)], imageHeight=sides[0], imageWidth=sides[1])
    converted, images = convert(tmp_path / 'in', tmp_path, val_fraction=0.4)
    assert converted.problems == [] and len(images) == 3


def test_why_nothing_can_be_read_is_said(source, tmp_path):
    for path in source.rglob('*.json'):
        path.write_bytes(b'{"shapes": [\xff]}')
    with pytest.raises(
        DataError, match=r'4 of 4 JSON files cannot be read, .*; the first fault: circle.json: not utf-8 nor gb18030'
    ):
        convert_labelme(source, tmp_path / 'out')


def test_a_class_does_not_disappear_in_silence(source, tmp_path):
    (source / 'deep' / 'er' / 'box.png').unlink()  # the only dog
    (source / 'nothing.json').write_text('{')
    converted, _ = convert(source, tmp_path, val_fraction=0.5)
    assert converted.classes == ('cat', 'dog')
    assert converted.notes == [
        '2 of 4 samples are left out',
        "class 'dog' has no object in what is left",
        '1 files cannot be read, and classes that only they hold are missing',
        '1 images have no JSON file, and are left out; the first is nothing.png',
    ]


def test_files_of_operating_systems(source, tmp_path):
    for name in ('._triangle.json', '__MACOSX/._triangle.json', '__MACOSX/a.json', '.ipynb_checkpoints/a.json'):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b'litter')
    converted, images = convert(source, tmp_path)
    assert len(images) == 4 and converted.problems == [] == converted.notes


def test_suffix_of_json_in_upper_case(source, tmp_path):
    (source / 'circle.json').rename(source / 'circle.JSON')
    converted, images = convert(source, tmp_path)
    assert len(images['circle.png'][2]) == 1


def test_an_image_of_several_pages(source, tmp_path):
    from PIL import Image

    frames = [Image.new('RGB', SIZE[::-1], (i, 0, 0)) for i in range(3)]
    frames[0].save(source / 'triangle.tif', save_all=True, append_images=frames[1:])
    set_key(imagePath='triangle.tif')(source / 'triangle.json')
    converted, _ = convert(source, tmp_path)
    assert len(converted.problems) == 1
    assert converted.problems[0].startswith("triangle.json: image 'triangle.tif': holds 3 pages")


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_an_image_that_is_cut_off(source, tmp_path, suffix):
    """OpenCV makes up the rest of a JPEG."""
    content = cv2.imencode(suffix, picture())[1].tobytes()
    (source / f'triangle{suffix}').write_bytes(content[: len(content) * 2 // 3])
    assert suffix == '.png' or cv2.imread(str(source / f'triangle{suffix}')).shape == (*SIZE, 3)
    set_key(imagePath=f'triangle{suffix}')(source / 'triangle.json')
    converted, _ = convert(source, tmp_path)
    assert len(converted.problems) == 1 and 'not readable as an image' in converted.problems[0]


def test_ignored_labels(source, tmp_path):
    converted, images = convert(source, tmp_path, ignore=['dog'])
    assert converted.classes == ('cat',) and converted.problems == []
    assert converted.notes == ["1 shapes 'dog' are left out (ignore)"]
    assert images['deep/er/box.png'][2] == []


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(source='nowhere'), DataError, "source 'nowhere' is not a folder"),
        (dict(classes=['a', 'a']), ValueError, 'classes is .* each once'),
        (dict(classes='cat'), ValueError, "classes is 'cat', it takes a sequence"),
        (dict(classes=['cat'], ignore=['cat']), ValueError, 'ignore is'),
        (dict(val_fraction=1), ValueError, 'val_fraction is 1'),
        (dict(on_error='maybe'), ValueError, "on_error is 'maybe'"),
    ],
)
def test_bad_arguments(source, tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        convert_labelme(**dict(dict(source=source, out_dir=tmp_path / 'out'), **arguments))
    assert not (tmp_path / 'out').exists()


def test_out_dir_in_the_source(source):
    with pytest.raises(ValueError, match='lies in source'):
        convert_labelme(source, source / 'coco')


def test_recognized_until_a_point_moves(source, tmp_path):
    assert convert_labelme(source, tmp_path / 'out', val_fraction=0.25)
    assert convert_labelme(source, tmp_path / 'out', val_fraction=0.25) is None
    path = source / 'triangle.json'
    path.write_text(path.read_text().replace('10.5', '10.6'))
    with pytest.raises(DataError, match='source is'):
        convert_labelme(source, tmp_path / 'out', val_fraction=0.25)
    assert convert_labelme(source, tmp_path / 'out', val_fraction=0.25, force=True)


def test_command_line(source, tmp_path, monkeypatch, capsys):
    set_key(shapes=[shape('cat', [[3, 4]], 'point')])(source / 'triangle.json')
    command = [str(TOOL), str(source), str(tmp_path / 'out'), '--val-fraction', '0.25']
    monkeypatch.setattr(sys, 'argv', [*command, '--on-error', 'raise'])
    with pytest.raises(SystemExit, match=r"^labelme: triangle.json: shapes\[0\] \('cat'\): a point has no area$"):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert not (tmp_path / 'out').exists()
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr()
    assert printed.err == "left out: triangle.json: shapes[0] ('cat'): a point has no area\n"
    assert printed.out.splitlines()[-1] == "classes=('cat', 'dog'), num_classes=2"
    assert (tmp_path / 'out' / 'train.json').is_file()
