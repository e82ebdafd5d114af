# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json
import runpy
import shutil
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from repository import tool_path

from mmpanet.datasets.converters.conversion import split_samples
from mmpanet.datasets.converters.dsb2018 import convert_dsb2018
from mmpanet.utils.errors import ConfigError, DataError

TOOL = tool_path('dsb2018')
SIZE = (40, 48)


def add_sample(source, name, kind='color'):
    """A sample of three square nuclei."""
    rng = np.random.RandomState(sum(map(ord, name)))
    gray = rng.randint(0, 255, SIZE).astype(np.uint8)
    image = {
        'color': np.dstack([gray, gray // 2, gray]),
        'alpha': np.dstack([gray, gray // 2, gray, np.full_like(gray, 255)]),
        'gray': gray,
        'gray as color': np.dstack([gray] * 3),
    }[kind]
    (source / name / 'images').mkdir(parents=True)
    (source / name / 'masks').mkdir()
    cv2.imwrite(str(source / name / 'images' / f'{name}.png'), image)
    for i in range(3):
        mask = np.zeros(SIZE, np.uint8)
        mask[5 + 10 * i : 12 + 10 * i, 4 + 9 * i : 12 + 9 * i] = 255
        cv2.imwrite(str(source / name / 'masks' / f'm{i}.png'), mask)
    return image


@pytest.fixture
def source(tmp_path):
    source = tmp_path / 'stage1_train'
    for i in range(10):
        add_sample(source, f's{i}')
    return source


def load(out_dir):
    return {split: COCO(str(out_dir / f'{split}.json')) for split in ('train', 'val')}


def names(coco):
    return {image['file_name'] for image in coco.imgs.values()}


def test_convert(source, tmp_path):
    converted = convert_dsb2018(source, tmp_path / 'out', val_fraction=0.3)
    assert converted.counts == dict(train=(7, 21), val=(3, 9))
    assert converted.problems == []
    splits = load(tmp_path / 'out')
    everything = {f's{i}.png' for i in range(10)}
    assert names(splits['train']) | names(splits['val']) == everything
    assert not names(splits['train']) & names(splits['val'])
    assert {p.name for p in (tmp_path / 'out' / 'images').iterdir()} == everything
    for coco in splits.values():
        assert coco.dataset['categories'] == [dict(id=1, name='nucleus')]
        for ann in coco.anns.values():
            assert coco.annToMask(ann).shape == SIZE
            assert ann['area'] == 56
            assert ann['bbox'][2:] == [8, 7]


@pytest.mark.parametrize(
    'kind, shape', [('color', (*SIZE, 3)), ('alpha', (*SIZE, 3)), ('gray', SIZE), ('gray as color', SIZE)]
)
def test_kinds_of_image(tmp_path, kind, shape):
    image = add_sample(tmp_path / 'in', 'a', kind)
    add_sample(tmp_path / 'in', 'b', kind)
    convert_dsb2018(tmp_path / 'in', tmp_path / 'out', val_fraction=0.5)
    stored = cv2.imread(str(tmp_path / 'out' / 'images' / 'a.png'), cv2.IMREAD_UNCHANGED)
    assert stored.shape == shape
    expected = image[..., 0] if image.ndim > len(shape) else image[..., :3]
    if kind == 'gray':
        expected = image
    np.testing.assert_array_equal(stored, expected)


def test_split_depends_on_the_seed_alone(source, tmp_path):
    for name in ('a', 'b'):
        convert_dsb2018(source, tmp_path / name)
    assert (tmp_path / 'a/train.json').read_bytes() == (tmp_path / 'b/train.json').read_bytes()
    convert_dsb2018(source, tmp_path / 'c', seed=1)
    assert names(load(tmp_path / 'a')['val']) != names(load(tmp_path / 'c')['val'])


def test_split_moves_few():
    many = [f'sample {i}' for i in range(200)]
    before = split_samples(many, 0.2, 0)
    after = split_samples(many + ['new'], 0.2, 0)
    assert len(before['val']) == 40
    assert set(before['train']) | set(before['val']) == set(many)
    assert len(set(before['val']) ^ set(after['val'])) <= 2


def break_image(sample):
    next((sample / 'images').iterdir()).write_bytes(b'not a PNG')


def break_empty_file(sample):
    next((sample / 'images').iterdir()).write_bytes(b'')


def break_two_images(sample):
    path = next((sample / 'images').iterdir())
    shutil.copy(path, path.with_name('second.png'))


def break_no_image(sample):
    next((sample / 'images').iterdir()).unlink()


def break_no_image_folder(sample):
    shutil.rmtree(sample / 'images')


def break_deep_image(sample):
    path = next((sample / 'images').iterdir())
    cv2.imwrite(str(path), np.zeros(SIZE, np.uint16))


def break_no_mask_folder(sample):
    shutil.rmtree(sample / 'masks')


def break_no_mask(sample):
    shutil.rmtree(sample / 'masks')
    (sample / 'masks').mkdir()


def break_mask(sample):
    path = sample / 'masks' / 'm1.png'
    path.write_bytes(path.read_bytes()[:20])


def break_mask_size(sample):
    cv2.imwrite(str(sample / 'masks' / 'm1.png'), np.full((9, 9), 255, 'u1'))


def break_overlap(sample):
    mask = np.zeros(SIZE, np.uint8)
    mask[5:8, 4:8] = 255
    cv2.imwrite(str(sample / 'masks' / 'm1.png'), mask)


def break_end(sample):
    path = next((sample / 'images').iterdir())
    path.write_bytes(path.read_bytes()[:-900])


def break_suffix(sample):
    (sample / 'masks' / 'm1.png').rename(sample / 'masks' / 'm1.tif')


def break_pages(sample):
    from PIL import Image

    frames = [Image.new('L', SIZE[::-1], value) for value in (0, 255)]
    frames[0].save(sample / 'masks' / 'm1.png', save_all=True, append_images=frames[1:])


BAD_SAMPLES = [
    (break_image, 's4/images/s4.png: not readable as an image'),
    (break_empty_file, 's4/images/s4.png: not readable as an image'),
    (break_two_images, 's4/images: holds 2 images, not one'),
    (break_no_image, 's4/images: holds no PNG'),
    (break_no_image_folder, 's4/images: no such folder'),
    (break_deep_image, 's4/images/s4.png: holds 16 bits per channel, not 8'),
    (break_no_mask_folder, 's4/masks: no such folder'),
    (break_no_mask, 's4/masks: holds no PNG'),
    (break_mask, 's4/masks/m1.png: not readable as an image'),
    (break_mask_size, 's4/masks/m1.png: 9 x 9, its image is 40 x 48'),
    (break_overlap, 's4/masks/m1.png: overlaps m0.png'),
    (break_end, 's4/images/s4.png: not readable as an image'),
    (break_suffix, 's4/masks/m1.tif: not a PNG; the folder takes PNG files only'),
    (break_pages, 's4/masks/m1.png: holds 2 pages'),
]


@pytest.mark.parametrize('spoil, problem', BAD_SAMPLES)
def test_bad_sample_is_named_and_skipped(source, tmp_path, spoil, problem):
    spoil(source / 's4')
    converted = convert_dsb2018(source, tmp_path / 'out')
    assert len(converted.problems) == 1 and converted.problems[0].startswith(problem)
    assert sum(images for images, _ in converted.counts.values()) == 9
    assert not (tmp_path / 'out' / 'images' / 's4.png').exists()


@pytest.mark.parametrize('spoil, problem', BAD_SAMPLES)
def test_bad_sample_is_refused(source, tmp_path, spoil, problem):
    spoil(source / 's4')
    with pytest.raises(DataError) as error:
        convert_dsb2018(source, tmp_path / 'out', on_error='raise')
    assert str(error.value).startswith(problem)
    assert [path.name for path in tmp_path.iterdir()] == ['stage1_train']


def test_files_of_operating_systems(source, tmp_path):
    for name in (
        '.DS_Store',
        '__MACOSX/._s1',
        's1/.DS_Store',
        's1/masks/._m0.png',
        's1/masks/Thumbs.db',
        's1/images/desktop.ini',
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(b'litter')
    (source / 's1' / 'masks' / 'm1.png').rename(source / 's1' / 'masks' / 'm1.PNG')
    converted = convert_dsb2018(source, tmp_path / 'out')
    assert sum(count for _, count in converted.counts.values()) == 30 and converted.problems == [] == converted.notes


def test_empty_mask_alone_is_skipped(source, tmp_path):
    cv2.imwrite(str(source / 's4/masks/m1.png'), np.zeros(SIZE, np.uint8))
    converted = convert_dsb2018(source, tmp_path / 'out')
    assert converted.problems == ['s4/masks/m1.png: empty mask']
    assert sum(images for images, _ in converted.counts.values()) == 10
    assert sum(objects for _, objects in converted.counts.values()) == 29
    with pytest.raises(DataError, match='s4/masks/m1.png: empty mask'):
        convert_dsb2018(source, tmp_path / 'other', on_error='raise')
    assert not (tmp_path / 'other').exists()


def test_recognized_until_the_source_changes(source, tmp_path):
    out_dir = tmp_path / 'out'
    assert convert_dsb2018(source, out_dir)
    assert convert_dsb2018(source, out_dir) is None
    add_sample(source, 'one_more')
    with pytest.raises(DataError, match='source is'):
        convert_dsb2018(source, out_dir)
    assert convert_dsb2018(source, out_dir, force=True)


@pytest.mark.parametrize(
    'argument, value, error',
    [
        ('val_fraction', 0, ValueError),
        ('val_fraction', 1, ValueError),
        ('on_error', 'ignore', ValueError),
        ('source', 'nowhere', DataError),
    ],
)
def test_bad_argument_is_named(source, tmp_path, argument, value, error):
    args = dict(source=source, out_dir=tmp_path / 'out')
    args[argument] = value
    with pytest.raises(error, match=f"^{argument} (is )?'?{value}'? ?"):
        convert_dsb2018(**args)
    assert not (tmp_path / 'out').exists()


def test_out_dir_in_the_source(source):
    with pytest.raises(ConfigError, match="lies in source '.*', where its own files would be read"):
        convert_dsb2018(source, source / 'out')


def test_no_samples(tmp_path):
    (tmp_path / 'in').mkdir()
    with pytest.raises(DataError, match='holds no samples'):
        convert_dsb2018(tmp_path / 'in', tmp_path / 'out')


def test_nothing_left_for_a_split(source, tmp_path):
    with pytest.raises(ValueError, match='none is left for val'):
        convert_dsb2018(source, tmp_path / 'out', val_fraction=0.01)
    assert not (tmp_path / 'out').exists()


def test_command_line(source, tmp_path, monkeypatch, capsys):
    break_mask(source / 's4')
    monkeypatch.chdir(tmp_path)
    args = [str(TOOL), str(source)]
    monkeypatch.setattr(sys, 'argv', [*args, '--on-error', 'raise'])
    with pytest.raises(SystemExit, match='dsb2018: s4/masks/m1.png: not readable as an image'):
        runpy.run_path(str(TOOL), run_name='__main__')
    assert not (tmp_path / 'data' / 'dsb2018').exists()
    monkeypatch.setattr(sys, 'argv', args)
    runpy.run_path(str(TOOL), run_name='__main__')
    printed = capsys.readouterr()
    assert 'left out: s4/masks/m1.png' in printed.err
    assert 'val: 2 images, 6 objects' in printed.out
    assert json.loads((tmp_path / 'data/dsb2018/val.json').read_text())
    runpy.run_path(str(TOOL), run_name='__main__')
    assert capsys.readouterr().out == 'data/dsb2018: there already\n'
