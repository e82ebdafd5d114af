# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import hashlib
import json
import runpy
import sys

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from repository import ROOT, tool_path

from mmdet.datasets import CocoDataset
from mmpanet.datasets.converters.dsb2018 import CLASSES
from mmpanet.datasets.shapes import SHAPES, ShapesConfig, make_image, make_shapes
from mmpanet.datasets.shapes.outlines import enclosed_area, rasterize
from mmpanet.datasets.shapes.rendering import render
from mmpanet.utils.errors import DataError

TOOL = tool_path('make_shapes')
SMALL = dict(num_train=24, num_val=8, image_size=(128, 160), area=(40, 5000))


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    out_dir = tmp_path_factory.mktemp('shapes') / 'set'
    counts = make_shapes(out_dir, ShapesConfig(empty_fraction=0.2, **SMALL))
    return out_dir, counts


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def test_same_arguments_same_bytes(dataset, tmp_path):
    make_shapes(tmp_path / 'again', ShapesConfig(empty_fraction=0.2, **SMALL), workers=2)
    assert digests(tmp_path / 'again') == digests(dataset[0])


def test_another_seed_another_image():
    images = [
        make_image(ShapesConfig(seed=seed), split, index)[0]
        for seed, split, index in [(0, 'train', 0), (1, 'train', 0), (0, 'val', 0), (0, 'train', 1)]
    ]
    assert len({image.tobytes() for image in images}) == 4


def test_longer_dataset_begins_with_the_shorter(dataset):
    config = ShapesConfig(**{**SMALL, 'num_train': 99}, empty_fraction=0.2)
    for index in (0, 23):
        image, _ = make_image(config, 'train', index)
        stored = cv2.imread(str(dataset[0] / 'images' / f'train_{index:05d}.png'))
        np.testing.assert_array_equal(image, stored)


def test_pycocotools_reads_it(dataset):
    out_dir, counts = dataset
    for split, (num_images, num_objects) in counts.items():
        coco = COCO(str(out_dir / f'{split}.json'))
        assert len(coco.imgs) == num_images == SMALL[f'num_{split}']
        assert len(coco.anns) == num_objects > 0
        names = [category['name'] for category in coco.dataset['categories']]
        assert names == list(ShapesConfig().classes)
        for image_id, image in coco.imgs.items():
            stored = cv2.imread(str(out_dir / 'images' / image['file_name']), cv2.IMREAD_UNCHANGED)
            assert stored.shape == (image['height'], image['width'], 3)
            covered = np.zeros(stored.shape[:2], int)
            for ann in coco.loadAnns(coco.getAnnIds(image_id)):
                mask = coco.annToMask(ann)
                assert mask.sum() == ann['area'] > 0
                ys, xs = mask.nonzero()
                assert ann['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
                covered += mask
            assert covered.max() <= 1  # masks are what can be seen


def test_mmdet_reads_it(dataset):
    out_dir, counts = dataset
    with DefaultScope.overwrite_default_scope('mmdet'):
        coco = CocoDataset(
            data_root=str(out_dir),
            ann_file='train.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=ShapesConfig().classes),
            filter_cfg=dict(filter_empty_gt=False),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
            ],
        )
        assert len(coco) == counts['train'][0]
        samples = [coco[i]['data_samples'].gt_instances for i in range(len(coco))]
    assert sum(len(s) for s in samples) == counts['train'][1]
    assert {label for s in samples for label in s.labels.tolist()} == set(range(len(ShapesConfig().classes)))
    assert all(s.masks.masks.shape[0] == len(s) for s in samples)


def test_images_without_objects(dataset):
    empty = [
        index for index in range(24) if not make_image(ShapesConfig(empty_fraction=0.2, **SMALL), 'train', index)[1]
    ]
    coco = COCO(str(dataset[0] / 'train.json'))
    assert [i - 1 for i in coco.imgs if not coco.getAnnIds(i)] == empty
    assert empty
    for fraction, expected in ((0, False), (1, True)):
        config = ShapesConfig(empty_fraction=fraction)
        assert all(bool(make_image(config, 'val', i)[1]) != expected for i in range(5))


def test_areas_over_two_orders_of_magnitude():
    config = ShapesConfig()
    areas = np.array([item.mask.sum() for index in range(60) for item in make_image(config, 'train', index)[1]])
    smallest, largest = config.area
    # rasterizing moves an area by a few pixels at most
    assert areas.min() >= smallest * config.min_visible - 1
    assert areas.max() <= largest * 1.02
    assert areas.max() > 100 * areas.min()


def test_occlusion():
    """Objects hide each other, and an almost hidden one is not there."""
    config = ShapesConfig(empty_fraction=0, num_objects=(8, 16))
    hidden = []
    for index in range(20):
        front = np.zeros(config.image_size, bool)
        for item in make_image(config, 'train', index)[1]:
            whole = np.zeros(config.image_size, bool)
            whole[item.window] = item.coverage >= 128
            np.testing.assert_array_equal(item.mask, whole & ~front)
            hidden.append(1 - item.mask.sum() / whole.sum())
            front |= whole
    assert np.mean(np.array(hidden) > 0.1) > 0.1
    assert max(hidden) <= 1 - config.min_visible + 0.02


@pytest.mark.parametrize('name', SHAPES)
@pytest.mark.parametrize('area', [80, 900, 12000])
def test_shape_has_its_area_and_its_holes(name, area):
    for seed in range(4):
        contours = SHAPES[name](np.random.RandomState(seed))
        scale = np.sqrt(area / enclosed_area(contours))
        window, coverage = rasterize([c * scale + 200.3 for c in contours], (400, 400))
        assert coverage.shape == tuple(s.stop - s.start for s in window)
        # fillPoly includes the outline: half a sample all around
        perimeter = sum(np.hypot(*(c - np.roll(c, 1, axis=0)).T).sum() for c in contours) * scale
        covered = coverage.sum() / 255
        assert area - 0.05 * perimeter - 1 < covered < area + 0.25 * perimeter
        mask = np.pad(coverage >= 128, 1)
        ground = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 1
        assert ground == 1 + (name in ('ring', 'frame'))
        assert cv2.connectedComponents(mask.astype(np.uint8))[0] == 2


def test_hole_shows_what_lies_behind():
    """Neither the mask nor the picture of a ring covers its hole."""
    config = ShapesConfig(classes=['ring'], num_objects=(1, 1), area=(3000, 6000))
    for index in range(10):
        for item in make_image(config, 'train', index)[1]:
            rle = mask_utils.encode(np.asfortranarray(item.mask.view(np.uint8)))
            ys, xs = item.mask.nonzero()
            cy, cx = int(ys.mean()), int(xs.mean())
            whole = ys.min() > 0 and xs.min() > 0 and ys.max() < 255 and xs.max() < 255
            if whole:
                assert mask_utils.decode(rle)[cy, cx] == 0
                # The same ground with the ring and without it.
                drawn, empty = (render(config, one, np.random.RandomState(0)).astype(int) for one in ([item], []))
                change = np.abs((drawn - empty).reshape(-1, 3))
                hole = np.zeros(config.image_size, bool)
                hole[cy - 2 : cy + 3, cx - 2 : cx + 3] = True
                assert change[hole.ravel()].mean() < 15 < 30 < change[item.mask.ravel()].mean()
                return
    pytest.fail('no whole ring in ten images')


def test_config_names_the_same_classes():
    base = ROOT / 'configs' / '_base_' / 'datasets'
    for name, classes in (('shapes', ShapesConfig().classes), ('dsb2018', CLASSES)):
        config = Config.fromfile(base / f'{name}_instance.py')
        assert tuple(config.metainfo.classes) == classes
        assert len(config.metainfo.palette) == len(classes)


def test_rerun_and_other_arguments(tmp_path):
    config = ShapesConfig(num_train=2, num_val=1)
    out_dir = tmp_path / 'set'
    assert make_shapes(out_dir, config)['val'][0] == 1
    before = digests(tmp_path)
    assert make_shapes(out_dir, config) is None
    other = ShapesConfig(num_train=2, num_val=1, seed=1)
    with pytest.raises(DataError, match='seed is 0, not 1'):
        make_shapes(out_dir, other)
    assert digests(tmp_path) == before
    make_shapes(out_dir, other, force=True)
    assert digests(tmp_path) != before


@pytest.mark.parametrize(
    'argument, value',
    [
        ('num_train', 0),
        ('num_val', -1),
        ('image_size', (16, 64)),
        ('image_size', (64,)),
        ('classes', ()),
        ('classes', ('blob',)),
        ('classes', ('star', 'star')),
        ('num_objects', (0, 3)),
        ('num_objects', (5, 3)),
        ('area', (4, 100)),
        ('area', (200, 100)),
        ('area', (100, 1e6)),
        ('min_visible', 0),
        ('min_visible', 1.5),
        ('empty_fraction', -0.1),
        ('empty_fraction', 1.1),
        ('seed', -1),
        ('seed', 2**32),
    ],
)
def test_bad_argument_is_named(argument, value):
    with pytest.raises(ValueError, match=f'^{argument} is .*, it takes '):
        ShapesConfig(**{argument: value})


def test_bad_workers(tmp_path):
    with pytest.raises(ValueError, match='workers is 0'):
        make_shapes(tmp_path / 'set', workers=0)
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path, monkeypatch, capsys):
    args = [
        str(TOOL),
        '--num-train',
        '3',
        '--num-val',
        '1',
        '--image-size',
        '64',
        '96',
        '--area',
        '30',
        '900',
        '--classes',
        'star',
        'ring',
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', args)
    runpy.run_path(str(TOOL), run_name='__main__')
    assert 'data/shapes: train: 3 images' in capsys.readouterr().out
    data = json.loads((tmp_path / 'data/shapes/train.json').read_text())
    assert [c['name'] for c in data['categories']] == ['star', 'ring']
    runpy.run_path(str(TOOL), run_name='__main__')
    assert capsys.readouterr().out == 'data/shapes: there already\n'
    monkeypatch.setattr(sys, 'argv', [*args, '--seed', '-3'])
    with pytest.raises(SystemExit, match=r'make_shapes: seed is -3, it takes 0 to 2\*\*32 - 1'):
        runpy.run_path(str(TOOL), run_name='__main__')
