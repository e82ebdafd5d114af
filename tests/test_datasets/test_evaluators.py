# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Evaluators that do not fit their datasets, compared with what pycocotools and MMDetection make of them."""

import contextlib
import copy
import io
import json
import re

import pytest
from coco_data import CLASSES, make_coco, write_coco
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets import CocoDataset
from mmdet.evaluation.metrics import CocoMetric
from mmdet.registry import DATASETS
from mmpanet.datasets.checks import check_datasets, unset_faults
from mmpanet.datasets.checks.config import form_faults
from mmpanet.utils.errors import DataError


def average_precision(truth_file, predicted):
    """AP of detections equal to the ground truth of another file, or None if pycocotools refuses them."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        results = [
            dict(
                image_id=one['image_id'], category_id=one['category_id'], score=0.9, bbox=list(map(float, one['bbox']))
            )
            for one in predicted['annotations']
        ]
        try:
            evaluation = COCOeval(truth, truth.loadRes(results), 'bbox')
        except AssertionError:
            return None
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]


def make_config(tmp_path, monkeypatch, evaluated=None, **dataset):
    """A test set, and an evaluator that reads ``evaluated``, or else the same file."""
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, make_coco(), 'data.json')
    if evaluated is not None:
        (tmp_path / 'other.json').write_text(json.dumps(evaluated))
    node = dict(
        type='CocoDataset',
        ann_file='data.json',
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img='images/'),
        pipeline=[dict(type='LoadImageFromFile')],
        test_mode=True,
    )
    node.update(dataset)
    ann_file = 'data.json' if evaluated is None else 'other.json'
    return Config(
        dict(
            model=dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))),
            test_dataloader=dict(dataset=node),
            test_evaluator=dict(type='CocoMetric', ann_file=ann_file, metric='bbox'),
        )
    )


def findings_of(cfg):
    try:
        return [], check_datasets(cfg, 'test')
    except DataError as error:
        return error.faults, []


def shifted(data):
    for image in data['images']:
        image['id'] += 10
    for one in data['annotations']:
        one['image_id'] += 10


def without_last_image(data):
    data['images'].pop()
    data['annotations'] = data['annotations'][:-2]


def more_images(data):
    more = make_coco(5)
    data.update(images=more['images'], annotations=more['annotations'])


def more_images_without_objects(data):
    data['images'] = make_coco(5)['images']


def shuffled_ids(data):
    for image in data['images']:
        image['id'] = 4 - image['id']
    for one in data['annotations']:
        one['image_id'] = 4 - one['image_id']


OTHER_FILES = [
    (lambda data: None, '', 1),
    (lambda data: [image.update(file_name=f'images/{image["file_name"]}') for image in data['images']], '', 1),
    (more_images_without_objects, '', 1),
    (shifted, r"'other.json' has no image with the id 1, 2, 3, as test_dataloader.dataset (data.json) has", None),
    (without_last_image, "'other.json' has no image with the id 3, as test_dataloader.dataset (data.json) has", None),
    (more_images, "'other.json' has objects in the images with the id 4, 5, which test_dataloader.dataset", 0.6),
    (shuffled_ids, "'other.json' calls image 1 '3.png', and test_dataloader.dataset (data.json) calls it '1.png'", 1),
]


@pytest.mark.parametrize('change, message, precision', OTHER_FILES)
def test_an_evaluator_with_a_file_of_its_own(tmp_path, monkeypatch, change, message, precision):
    """What passes gives an AP of 1 to perfect detections. (With other ids they are perfect for other images.)"""
    data = make_coco()
    change(data)
    cfg = make_config(tmp_path, monkeypatch, data)
    faults, _ = findings_of(cfg)
    assert len(faults) == bool(message)
    if message:
        assert faults[0].startswith('test_evaluator.ann_file=') and message in faults[0]
    measured = average_precision(tmp_path / 'other.json', make_coco())
    assert measured == precision if precision is None else measured == pytest.approx(precision, abs=0.01)


@pytest.mark.parametrize('changes', [dict(indices=2), dict(indices=[0, 2]), dict(filter_cfg=dict(min_size=32))])
def test_images_that_are_evaluated_and_not_predicted_are_counted(tmp_path, monkeypatch, changes):
    data = make_coco()
    data['images'][1].update(height=20, width=20)
    data['annotations'] = [one for one in data['annotations'] if one['image_id'] != 2 or one['category_id'] == 1]
    data['annotations'][2].update(bbox=[1, 2, 9, 9], segmentation=[[1, 2, 10, 2, 10, 11, 1, 11]])
    cfg = make_config(tmp_path, monkeypatch, test_mode=False, **changes)
    (tmp_path / 'data.json').write_text(json.dumps(data))
    (tmp_path / 'images' / '2.png').unlink()
    write_small_image(tmp_path / 'images' / '2.png')
    faults, notes = findings_of(cfg)
    assert faults == []
    wanted = copy.deepcopy(cfg.test_dataloader.dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        predicted = {info['img_id'] for info in map(DATASETS.build(wanted).get_data_info, range(2))}
    shown = dict(data, annotations=[one for one in data['annotations'] if one['image_id'] in predicted])
    assert average_precision(tmp_path / 'data.json', shown) < 0.9
    line = 'test_dataloader.dataset uses 2 of 3 images, and the evaluation counts the objects in 1 others as not found'
    assert [note for note in notes if line in note]


def write_small_image(path):
    from PIL import Image

    Image.new('RGB', (20, 20)).save(path)


@pytest.mark.parametrize('metric', ['bbox', ['bbox', 'segm'], ('bbox', 'segm'), 'mask', ['bbox', 'mask'], None, 3, []])
def test_metrics_against_mmdet(tmp_path, monkeypatch, metric):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_evaluator.metric = metric
    faults, _ = findings_of(cfg)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            known = bool(CocoMetric(ann_file='data.json', metric=metric).metrics)
    except KeyError:
        known = False
    assert bool(faults) == (not known)
    assert all(fault.startswith('test_evaluator.metric=') and 'it takes bbox, segm, ' in fault for fault in faults)


@pytest.mark.parametrize(
    'evaluator, held',
    [
        (dict(ann_file='data.json'), '.type=None'),
        (dict(type='CocoMetrics'), ".type='CocoMetrics'"),
        ('CocoMetric', "='CocoMetric'"),
        ([dict(type='CocoMetric', ann_file='data.json'), dict(type='coco')], "[1].type='coco'"),
        (dict(metrics=[dict(type=None)]), '.metrics[0].type=None'),
    ],
)
def test_evaluators_that_are_none(tmp_path, monkeypatch, evaluator, held):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_evaluator = evaluator
    assert [fault.split(' is no metric')[0] for fault in findings_of(cfg)[0]] == [f'test_evaluator{held}']
    with pytest.raises((KeyError, TypeError)), contextlib.redirect_stdout(io.StringIO()):
        Runner.build_evaluator(None, copy.deepcopy(evaluator))


@pytest.mark.parametrize(
    'changes, message',
    [
        (
            dict(classes=CLASSES),
            r"test_evaluator.classes=\(?\[?'bolt', 'nut'.* is no key of CocoMetric, it takes ann_file",
        ),
        (dict(ANN_FILE='data.json'), "test_evaluator.ANN_FILE='data.json' is no key of CocoMetric"),
        (dict(prefix='x', classwise=True), ''),
    ],
)
def test_keys_of_metrics_against_mmdet(tmp_path, monkeypatch, changes, message):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_evaluator.update(changes)
    faults, _ = findings_of(cfg)
    assert len(faults) == bool(message) and all(re.match(message, fault) for fault in faults), faults
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            CocoMetric(ann_file='data.json', **changes)
    except TypeError:
        assert message


def test_masks_of_a_model_that_predicts_none(tmp_path, monkeypatch):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_evaluator.metric = ['bbox', 'segm']
    assert findings_of(cfg)[0] == []
    cfg.model.roi_head.mask_head = None
    faults, _ = findings_of(cfg)
    assert len(faults) == 1 and "holds 'segm', and model.roi_head has no mask_head" in faults[0]
    cfg.test_evaluator.format_only = True
    assert findings_of(cfg)[0] == []


# Loaders and wrappers that hold no dataset

PLAIN = dict(
    type='CocoDataset',
    ann_file='data.json',
    metainfo=dict(classes=CLASSES),
    data_prefix=dict(img='images/'),
    pipeline=[],
)
NODES = [
    (PLAIN, ''),
    (dict(type='RepeatDataset', times=2, dataset=PLAIN), ''),
    (dict(type='ConcatDataset', datasets=[PLAIN, PLAIN]), ''),
    (dict(type='RepeatDataset', times=0, dataset=PLAIN), 'test_dataloader.dataset.times=0, it takes a whole number'),
    (dict(type='RepeatDataset', dataset=PLAIN), 'test_dataloader.dataset.times is missing, which RepeatDataset needs'),
    (dict(type='RepeatDataset', times=2), 'test_dataloader.dataset.dataset is missing, which RepeatDataset needs'),
    (
        dict(type='ConcatDataset', datasets=[PLAIN], classes=CLASSES),
        "test_dataloader.dataset.classes=('bolt', 'nut') is no key of ConcatDataset, it takes datasets",
    ),
    (dict(PLAIN, type=True), 'test_dataloader.dataset.type=True is no dataset that is registered'),
    (dict(type='RepeatDataset', times=2, dataset=None), 'test_dataloader.dataset.dataset=None, it takes a dict'),
    (dict(type='ConcatDataset', datasets=[]), r'test_dataloader.dataset.datasets=[], it takes a list of datasets'),
    (dict(type='ConcatDataset', datasets=PLAIN), "test_dataloader.dataset.datasets={'type'"),
    (dict(type='ConcatDataset', datasets=[PLAIN, 'val']), "test_dataloader.dataset.datasets[1]='val', it takes a dict"),
    ({key: PLAIN[key] for key in PLAIN if key != 'data_prefix'}, 'test_dataloader.dataset.data_prefix={} has no img'),
    (dict(PLAIN, data_prefix=dict(img_path='images/')), "test_dataloader.dataset.data_prefix={'img_path': 'images/'}"),
    ('data.json', "test_dataloader.dataset='data.json', it takes a dict with the type of a dataset"),
    (None, 'test_dataloader.dataset=None, it takes a dict'),
    ([PLAIN], "test_dataloader.dataset=[{'type'"),
    (dict(ann_file='data.json'), 'test_dataloader.dataset.type=None is no dataset that is registered'),
]


@pytest.mark.parametrize('node, message', NODES)
def test_wrappers_against_mmdet(tmp_path, monkeypatch, node, message):
    """mmengine builds what passes, with images in it."""
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_dataloader.dataset = copy.deepcopy(node)
    faults = form_faults(cfg, 'test')
    assert len(faults) == bool(message) and all(fault.startswith(message) for fault in faults), faults
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            built = len(DATASETS.build(cfg.test_dataloader.dataset)) > 0
    except Exception:
        built = False
    assert built == (not message)


@pytest.mark.parametrize('loader', [[dict(dataset=PLAIN)], 'data.json', dict(batch_size=1), 3])
def test_loaders_that_are_none(tmp_path, monkeypatch, loader):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.test_dataloader = loader
    assert [fault.split('=')[0] for fault in form_faults(cfg, 'test')] == ['test_dataloader']


@pytest.mark.parametrize('indices', [None, 2, -1, [0, 2], '10', 0.5, [0.0], dict(a=1)])
def test_forms_of_indices_against_mmengine(tmp_path, monkeypatch, indices):
    cfg = make_config(tmp_path, monkeypatch, indices=indices)
    faults = form_faults(cfg, 'test')
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
        assert faults == []
    except (TypeError, ValueError, KeyError):
        assert [fault.split(',')[0].split('=')[0] for fault in faults] == ['test_dataloader.dataset.indices']


@pytest.mark.parametrize('ann_file', ['', None])
def test_a_run_needs_the_annotation_file_that_a_check_passes_over(tmp_path, monkeypatch, ann_file):
    cfg = make_config(tmp_path, monkeypatch, ann_file=ann_file)
    assert findings_of(cfg) == ([], [])
    assert list(unset_faults(cfg, 'test')) == [
        f'test_dataloader.dataset.ann_file={ann_file!r}, it takes the path of an annotation file'
    ]
    with pytest.raises(Exception), contextlib.redirect_stdout(io.StringIO()):  # noqa: B017
        CocoDataset(ann_file=ann_file, metainfo=dict(classes=CLASSES), pipeline=[])
    cfg.test_dataloader.dataset.ann_file = 'data.json'
    assert list(unset_faults(cfg, 'test')) == []
