# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import runpy
import sys

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from repository import tool_path

from mmpanet.datasets import convert_masks
from mmpanet.utils.errors import ConfigError, DataError

TOOL = tool_path('masks')
SIZE = (40, 50)
NAMES = ('a', 'b', 'sub/c', 'd')


def values_of(name):
    """Two objects, 1 in two parts and 2; none in image d."""
    mask = np.zeros(SIZE, np.uint8)
    if name != 'd':
        mask[2:8, 3:10] = 1
        mask[20:25, 3:10] = 1
        mask[10:30, 20:30] = 2
    return mask


@pytest.fixture
def folders(tmp_path):
    images, masks = tmp_path / 'photos', tmp_path / 'truth'
    for name in NAMES:
        for folder, suffix, array in (
            (images, '.jpg', np.full((*SIZE, 3), 90, np.uint8)),
            (masks, '.png', values_of(name)),
        ):
            path = folder / (name + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), array)
    return images, masks


def convert(folders, tmp_path, kind, out='out', **kwargs):
    converted = convert_masks(*folders, tmp_path / out, kind, **dict(dict(val_fraction=0.25), **kwargs))
    images = {}
    for split in ('train', 'val'):
        coco = COCO(str(tmp_path / out / f'{split}.json'))
        assert list(coco.imgs) == list(range(1, len(coco.imgs) + 1))
        assert list(coco.anns) == list(range(1, len(coco.anns) + 1))
        for image in coco.imgs.values():
            annotations = coco.imgToAnns[image['id']]
            assert all(coco.annToMask(a).sum() == a['area'] for a in annotations)
            images[image['file_name']] = [(a['category_id'], a['area'], a['bbox']) for a in annotations]
    return converted, images


FIRST, SECOND = (1, 42 + 35, [3, 2, 7, 23]), (1, 200, [20, 10, 10, 20])


def test_objects(folders, tmp_path):
    converted, images = convert(folders, tmp_path, 'objects')
    assert converted.problems == [] and converted.classes == ('object',)
    assert images == {'a.jpg': [FIRST, SECOND], 'b.jpg': [FIRST, SECOND], 'sub/c.jpg': [FIRST, SECOND], 'd.jpg': []}
    for name in images:
        assert (tmp_path / 'out' / 'images' / name).read_bytes() == (folders[0] / name).read_bytes()


def test_classes(folders, tmp_path):
    converted, images = convert(folders, tmp_path, 'classes', classes=('rod', 'block'))
    assert converted.classes == ('rod', 'block')
    assert images['a.jpg'] == [(1, 42, [3, 2, 7, 6]), (1, 35, [3, 20, 7, 5]), (2, 200, [20, 10, 10, 20])]
    assert images['d.jpg'] == []


def test_parts_that_touch_at_a_corner_are_one(folders, tmp_path):
    cv2.imwrite(
        str(folders[1] / 'a.png'),
        np.pad(np.kron(np.eye(2, dtype=np.uint8), np.ones((5, 5), np.uint8)), ((0, 30), (0, 40))),
    )
    _, images = convert(folders, tmp_path, 'classes', classes=('rod', 'block'))
    assert images['a.jpg'] == [(1, 50, [0, 0, 10, 10])]


def test_binary_masks(folders, tmp_path):
    for path in folders[1].rglob('*.png'):
        cv2.imwrite(str(path), (cv2.imread(str(path), 0) > 0) * np.uint8(255))
    _, images = convert(folders, tmp_path, 'classes', classes=('thing',), values=[255])
    assert [area for _, area, _ in images['a.jpg']] == [42, 200, 35]
    # the same files taken for numbered objects would make three objects one
    with pytest.raises(DataError, match="truth/a.png: holds the value 255 alone, in 3 parts.*'classes'"):
        convert(folders, tmp_path, 'objects', out='other', on_error='raise')


def test_class_and_object_in_one_number(folders, tmp_path):
    cityscapes = np.zeros(SIZE, np.uint16)
    cityscapes[:5] = 26  # a group, which is no object
    cityscapes[10:20, :10] = 26000
    cityscapes[10:20, 20:30] = 26001
    cityscapes[30:, :] = 24005
    Image.fromarray(cityscapes).save(folders[1] / 'a.png')
    for name in ('b', 'sub/c'):
        cv2.imwrite(str(folders[1] / f'{name}.png'), np.zeros(SIZE, np.uint8))
    _, images = convert(folders, tmp_path, 'objects', classes=('person', 'car'), values=(24, 26), class_divisor=1000)
    assert images['a.jpg'] == [(1, 500, [0, 30, 50, 10]), (2, 100, [0, 10, 10, 10]), (2, 100, [20, 10, 10, 10])]


def test_palette_keeps_its_indices(folders, tmp_path):
    """As in Pascal VOC, whose masks show colors and hold indices, 255 for borders."""
    mask = values_of('a')
    mask[0] = 255
    image = Image.fromarray(mask).convert('P')
    image.putdata(mask.ravel().tolist())
    image.putpalette([(37 * i) % 256 for i in range(768)])
    image.save(folders[1] / 'a.png')
    assert cv2.imread(str(folders[1] / 'a.png'), cv2.IMREAD_UNCHANGED).ndim == 3
    _, images = convert(folders, tmp_path, 'objects', ignore_values=[255])
    assert images['a.jpg'] == [FIRST, SECOND]


def as_files(folders, one_folder_a_class=False):
    for name in NAMES:
        mask = values_of(name)
        (folders[1] / f'{name}.png').unlink()
        for value in (1, 2):
            folder = folders[1] / name / (('rod', 'block')[value - 1] if one_folder_a_class else '')
            folder.mkdir(parents=True, exist_ok=True)
            if (mask == value).any():
                cv2.imwrite(str(folder / f'{value}.png'), (mask == value) * np.uint8(255))


def test_files(folders, tmp_path):
    as_files(folders)
    converted, images = convert(folders, tmp_path, 'files')
    assert converted.problems == []
    assert images['sub/c.jpg'] == [FIRST, SECOND] and images['d.jpg'] == []


def test_files_of_several_classes(folders, tmp_path):
    as_files(folders, one_folder_a_class=True)
    _, images = convert(folders, tmp_path, 'files', classes=('rod', 'block'))
    assert sorted(images['a.jpg']) == [FIRST, (2, *SECOND[1:])]


def test_values_in_files_that_are_no_object(folders, tmp_path):
    as_files(folders)
    mask = np.zeros(SIZE, np.uint8)
    mask[:4, :5], mask[10:12] = 255, 100
    cv2.imwrite(str(folders[1] / 'a' / '3.png'), mask)
    _, images = convert(folders, tmp_path, 'files', ignore_values=[100])
    assert images['a.jpg'] == [FIRST, SECOND, (1, 20, [0, 0, 5, 4])]


def test_files_may_overlap(folders, tmp_path):
    as_files(folders)
    cv2.imwrite(str(folders[1] / 'a' / '3.png'), np.full(SIZE, 255, np.uint8))
    _, images = convert(folders, tmp_path, 'files')
    assert images['a.jpg'] == [FIRST, SECOND, (1, 2000, [0, 0, 50, 40])]


def test_empty_file_alone_is_left_out(folders, tmp_path):
    as_files(folders)
    cv2.imwrite(str(folders[1] / 'a' / '3.png'), np.zeros(SIZE, np.uint8))
    converted, images = convert(folders, tmp_path, 'files')
    assert converted.problems == ['truth/a/3.png: empty mask']
    assert images['a.jpg'] == [FIRST, SECOND]


def test_specks(folders, tmp_path):
    _, images = convert(folders, tmp_path, 'classes', classes=('rod', 'block'), min_area=42)
    assert [area for _, area, _ in images['a.jpg']] == [42, 200]


def test_mask_suffix(folders, tmp_path):
    for path in list(folders[1].rglob('*.png')):
        path.rename(path.with_name(f'{path.stem}_mask.png'))
    converted, images = convert(folders, tmp_path, 'objects', mask_suffix='_mask')
    assert converted.problems == [] and len(images) == 4


def test_without_a_mask(folders, tmp_path):
    (folders[1] / 'a.png').unlink()
    converted, images = convert(folders, tmp_path, 'objects')
    assert len(converted.problems) == 1 and converted.problems[0].startswith('truth/a.png: no such mask; an image')
    assert 'a.jpg' not in images
    _, images = convert(folders, tmp_path, 'objects', out='other', empty_without_mask=True)
    assert images['a.jpg'] == []


def write(name, content):
    def spoil(folders):
        path = folders[1] / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            cv2.imwrite(str(path), content)

    return spoil


def lossy(folders):
    (folders[1] / 'a.png').rename(folders[1] / 'a.jpg')


def bad_image(folders):
    (folders[0] / 'a.jpg').write_bytes(b'x')


@pytest.mark.parametrize(
    'spoil, problem',
    [
        (write('a.png', b'no PNG'), 'truth/a.png: not readable as an image'),
        (write('a.png', b''), 'truth/a.png: not readable as an image'),
        (write('a.png', np.zeros((9, 8), np.uint8)), 'truth/a.png: 9 x 8, its image is 40 x 50'),
        (write('a.png', np.dstack([values_of('a')] * 2 + [np.ones(SIZE, np.uint8)])), 'truth/a.png: holds colors'),
        (
            write('a.png', np.full(SIZE, 3, np.uint8)),
            'truth/a.png: holds 3, which is no class; there are 1 (rod), 2 (block); leave it out with ignore_values',
        ),
        (lossy, 'truth/a.jpg: this format changes values; a mask is one of .png'),
        (bad_image, 'a.jpg: not readable as an image'),
    ],
)
def test_bad_mask_is_named(folders, tmp_path, spoil, problem):
    spoil(folders)
    converted, images = convert(folders, tmp_path, 'classes', classes=('rod', 'block'))
    assert len(converted.problems) == 1 and converted.problems[0].startswith(problem)
    assert 'a.jpg' not in images and len(images) == 3
    with pytest.raises(DataError) as error:
        convert(folders, tmp_path, 'classes', out='strict', classes=('rod', 'block'), on_error='raise')
    assert str(error.value).startswith(problem)
    assert not (tmp_path / 'strict').exists()


@pytest.mark.parametrize(
    'classes, path, problem',
    [
        (
            ('rod', 'block'),
            'a/1.png',
            'truth/a/1.png: of which class? Its folder takes one folder per class: rod, block',
        ),
        (('rod', 'block'), 'a/cow/1.png', "truth/a/cow/1.png: 'cow' is no class, there are rod, block"),
        (('rod',), 'a/notes.txt', 'truth/a/notes.txt: a mask is one of .png, .tif, .tiff, .bmp, .gif'),
    ],
)
def test_bad_files_are_named(folders, tmp_path, classes, path, problem):
    as_files(folders, one_folder_a_class=True)
    if classes == ('rod',):
        for folder in folders[1].rglob('block'):
            for file in folder.iterdir():
                file.unlink()
    path = folders[1] / path
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), values_of('a')) if path.suffix == '.png' else path.write_text('x')
    with pytest.raises(DataError) as error:
        convert(folders, tmp_path, 'files', classes=classes, on_error='raise')
    assert str(error.value) == problem


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(kind='blobs'), "kind is 'blobs', it takes objects, classes, files"),
        (dict(kind='objects', classes=('a', 'b')), r"classes is \('a', 'b'\); with kind 'objects'"),
        (dict(kind='objects', values=[7]), r'values is \(7,\); only kind'),
        (dict(kind='files', values=[7]), r'values is \(7,\); only kind'),
        (dict(kind='classes', classes=('a', 'b'), values=[7]), r'values is \(7,\), it takes one number'),
        (dict(kind='classes', values=[0]), r'values is \(0,\), it takes one number above 0'),
        (dict(kind='classes', class_divisor=1000), 'class_divisor is 1000'),
        (dict(kind='classes', classes=()), 'classes is empty'),
        (dict(kind='classes', min_area=0), 'min_area is 0'),
        (dict(kind='classes', val_fraction=0), 'val_fraction is 0'),
        (dict(kind='classes', masks='nowhere'), "masks 'nowhere' is not a folder"),
    ],
)
def test_bad_arguments(folders, tmp_path, arguments, message):
    with pytest.raises((ValueError, DataError), match=message):
        convert_masks(**dict(dict(images=folders[0], masks=folders[1], out_dir=tmp_path / 'out'), **arguments))
    assert not (tmp_path / 'out').exists()


def test_two_images_of_one_name(folders, tmp_path):
    cv2.imwrite(str(folders[0] / 'a.png'), np.zeros(SIZE, np.uint8))
    with pytest.raises(ValueError, match='holds a.jpg and a.png'):
        convert(folders, tmp_path, 'objects')


def test_recognized_until_a_mask_changes(folders, tmp_path):
    assert convert_masks(*folders, tmp_path / 'out', 'objects')
    assert convert_masks(*folders, tmp_path / 'out', 'objects') is None
    mask = values_of('a')
    mask[0, 0] = 1
    cv2.imwrite(str(folders[1] / 'a.png'), mask)
    with pytest.raises(DataError, match='masks is'):
        convert_masks(*folders, tmp_path / 'out', 'objects')


def test_another_image_of_the_same_size_is_converted_anew(folders, tmp_path):
    """Names and sizes of files say nothing about uncompressed pixels."""
    for path in sorted(folders[0].rglob('*.jpg')):
        cv2.imwrite(str(path.with_suffix('.bmp')), cv2.imread(str(path)))
        path.unlink()
    convert_masks(*folders, tmp_path / 'out', 'objects', val_fraction=0.25)
    cv2.imwrite(str(folders[0] / 'a.bmp'), np.full((*SIZE, 3), 200, np.uint8))
    with pytest.raises(DataError, match="holds another dataset .*images is '"):
        convert_masks(*folders, tmp_path / 'out', 'objects', val_fraction=0.25)
    assert convert_masks(*folders, tmp_path / 'out', 'objects', val_fraction=0.25, force=True)
    assert cv2.imread(str(tmp_path / 'out/images/a.bmp')).mean() == 200


def test_a_source_inside_of_the_dataset_is_refused(folders, tmp_path):
    """Replacing the dataset would remove it."""
    inside = tmp_path / 'out' / 'photos'
    folders[0].rename(tmp_path / 'moved')
    inside.parent.mkdir()
    (tmp_path / 'moved').rename(inside)
    with pytest.raises(ConfigError, match=r"images '.*photos' lies in out_dir '.*out', whose files would be replaced"):
        convert_masks(inside, folders[1], tmp_path / 'out', 'objects', force=True)
    assert len(list(inside.rglob('*.jpg'))) == len(NAMES)


def test_command_line(folders, tmp_path, monkeypatch, capsys):
    command = [str(TOOL), *map(str, folders), str(tmp_path / 'out'), '--kind', 'classes', '--val-fraction', '0.25']
    monkeypatch.setattr(sys, 'argv', [*command, '--classes', 'rod', '--on-error', 'raise'])
    with pytest.raises(SystemExit, match=r'^masks: truth/a.png: holds 2, which is no class; there are 1 \(rod\)'):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert not (tmp_path / 'out').exists()
    monkeypatch.setattr(sys, 'argv', [*command, '--classes', 'rod', 'block'])
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr().out
    assert f'{tmp_path}/out: val: 1 images' in printed
    assert "classes=('rod', 'block'), num_classes=2" in printed
    assert json.loads((tmp_path / 'out' / 'val.json').read_text())['info']['recipe']['kind'] == 'classes'
    runpy.run_path(str(TOOL), run_name='__main__')
    assert capsys.readouterr().out == f'{tmp_path}/out: there already\n'
