# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the checks say of an annotation file, compared with what MMDetection and pycocotools make of it."""

import contextlib
import copy
import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_data import CLASSES, SIZE, make_coco, write_coco
from mmengine.config import Config
from mmengine.utils import get_installed_path
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import DATASETS
from mmpanet.datasets.checks import check_annotations, check_datasets, find_datasets, order_faults
from mmpanet.datasets.checks.config import form_faults
from mmpanet.datasets.checks.evaluators import find_evaluations
from mmpanet.utils.errors import DataError


def mmdet_dataset(ann_file, **kwargs):
    kwargs = dict(dict(metainfo=dict(classes=CLASSES), data_prefix=dict(img='images/'), pipeline=[]), **kwargs)
    with contextlib.redirect_stdout(io.StringIO()):
        return CocoDataset(ann_file=ann_file.name, data_root=str(ann_file.parent), **kwargs)


def learned(dataset):
    """The labels that MMDetection learns from."""
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [one['bbox_label'] for info in infos for one in info['instances'] if not one['ignore_flag']]


def average_precision(ann_file, data, iou_type, category_ids=None):
    """AP of detections equal to the ground truth, or None if the evaluation crashes."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            truth = COCO(str(ann_file))
            detections = [
                dict(
                    image_id=one['image_id'],
                    category_id=one['category_id'],
                    score=0.9,
                    bbox=[float(side) for side in one['bbox']],
                    **(dict(segmentation=truth.annToRLE(one)) if iou_type == 'segm' else {}),
                )
                for one in data['annotations']
            ]
            evaluation = COCOeval(truth, truth.loadRes(detections), iou_type)
            evaluation.params.catIds = category_ids or evaluation.params.catIds
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        except Exception:
            return None
    return evaluation.stats[0]


def assert_matches(message, fault):
    assert re.search(message, fault), fault


def change_all(**values):
    return lambda data: [one.update(values) for one in data['annotations']]


def change_first(**values):
    return lambda data: data['annotations'][0].update(values)


def drop(key):
    return lambda data: [one.pop(key) for one in data['annotations']]


EVALUATION_CASES = {
    'good': (lambda data: None, ''),
    'iscrowd is missing': (drop('iscrowd'), r'annotations\[0\] \(id 1\): iscrowd is missing, .* \(6 annotations\)'),
    'iscrowd is null': (change_first(iscrowd=None), 'iscrowd is None, it takes 0 or 1'),
    'iscrowd is a string': (change_first(iscrowd='0'), "iscrowd is '0', it takes 0 or 1"),
    'iscrowd is 2': (change_first(iscrowd=2), 'iscrowd is 2, it takes 0 or 1'),
    'iscrowd is false': (change_all(iscrowd=False), ''),
    'iscrowd is 0.0': (change_all(iscrowd=0.0), ''),
    'area is missing': (drop('area'), 'area is None, it takes a number'),
    'area is null': (change_first(area=None), 'area is None'),
    'area is a string': (change_first(area='280'), "area is '280', it takes a number"),
    'ids from 0': (
        lambda data: [one.update(id=one['id'] - 1) for one in data['annotations']],
        r'annotations\[0\] \(id 0\): id is 0, and the evaluation .* number the annotations from 1',
    ),
    'an id of 0.0': (change_first(id=0.0), 'id is 0, and the evaluation'),
    'negative ids': (lambda data: [one.update(id=-one['id']) for one in data['annotations']], ''),
    'ids with a decimal point': (
        lambda data: [one.update({key: float(one[key]) for key in ('id', 'image_id', 'category_id')})
                      for one in data['annotations']],
        '',
    ),
    'image ids with a decimal point': (lambda data: [one.update(id=float(one['id'])) for one in data['images']], ''),
    'id is a string': (change_first(id='1'), "id is '1', it takes a whole number"),
    'id is null': (change_first(id=None), 'id is None, it takes a whole number'),
    'counts with a decimal point': (
        lambda data: [one['segmentation'].update(counts=[float(run) for run in one['segmentation']['counts']])
                      for one in data['annotations'][1::2]],
        '',
    ),
    'size with a decimal point': (
        lambda data: data['annotations'][1]['segmentation'].update(size=[48.0, 64.0]),
        r'segmentation has size \[48.0, 64.0\], it takes that of its image',
    ),
    'height with a decimal point': (
        lambda data: data['images'][0].update(height=48.0),
        r'images\[0\] \(id 1\): height is 48.0, it takes a whole number of pixels above 0, without a decimal point',
    ),
    'no segmentation': (drop('segmentation'), 'segmentation is None, it takes polygons or RLE'),
    'an empty segmentation': (change_first(segmentation=[]), r'segmentation is \[\], it takes'),
}  # fmt: skip


@pytest.mark.parametrize('spoil, message', EVALUATION_CASES.values(), ids=EVALUATION_CASES)
def test_fields_of_the_evaluation_against_pycocotools(tmp_path, spoil, message):
    """A file passes if perfect detections reach an AP of 1 on it; otherwise the fault is named."""
    data = make_coco()
    spoil(data)
    ann_file = write_coco(tmp_path, data)
    faults = check_annotations(ann_file, CLASSES, masks=True, evaluated=True).faults
    precisions = [average_precision(ann_file, data, kind) for kind in ('bbox', 'segm')]
    if message:
        assert len(faults) == 1 and faults[0].startswith(f'{ann_file}: ')
        assert_matches(message, faults[0])
    else:
        assert not faults
        assert precisions == [pytest.approx(1)] * 2


def test_entries_that_are_no_objects_are_counted(tmp_path):
    data = make_coco()
    data['annotations'][1:3] = [None, None]
    faults = check_annotations(write_coco(tmp_path, data), CLASSES, masks=True).faults
    assert [fault.partition(': ')[2] for fault in faults if 'it is' in fault] == [
        'annotations[1]: it is None, it takes an object (2 annotations)'
    ]


def test_objects_of_other_categories_are_not_evaluated(tmp_path):
    data = make_coco()
    objects = list(data['annotations'])
    data['annotations'].append(dict(id=0, image_id=1, category_id=3, bbox=[1, 1, 9, 9], area=81, segmentation=[]))
    ann_file = write_coco(tmp_path, data)
    assert check_annotations(ann_file, CLASSES, masks=True, evaluated=True).faults == []
    for kind in ('bbox', 'segm'):
        precision = average_precision(ann_file, dict(data, annotations=objects), kind, category_ids=[1, 2])
        assert precision == pytest.approx(1)
    assert average_precision(ann_file, data, 'segm') is None  # with the third one pycocotools does not evaluate


LEARNING_CASES = {
    'all are crowds': change_all(iscrowd=1),
    'all are ignored': change_all(ignore=1),
    'all have no area': change_all(area=0),
    'all are less than a pixel': change_all(bbox=[4, 5, 0.5, 14]),
    'all are of another category': change_all(category_id=3),
    'one is of another category and has no mask': change_first(category_id=3, segmentation=[]),
    'one is a crowd': change_first(iscrowd=1),
    'one is ignored': change_first(ignore=True),
    'one has no area': change_first(area=0),
    'one class is always a crowd': lambda data: [one.update(iscrowd=1) for one in data['annotations'][::2]],
    'a box that only touches its image': change_first(bbox=[-20, 5, 20, 14]),
    'good': lambda data: None,
    'no annotations': lambda data: data.update(annotations=[]),
}


@pytest.mark.parametrize('spoil', LEARNING_CASES.values(), ids=LEARNING_CASES)
def test_what_is_learned_against_mmdet(tmp_path, spoil):
    """A file passes if MMDetection learns from one object at least; what it does not learn from is counted."""
    data = make_coco()
    spoil(data)
    ann_file = write_coco(tmp_path, data)
    findings = check_annotations(ann_file, CLASSES, masks=True)
    labels = learned(mmdet_dataset(ann_file))
    lost = len(data['annotations']) - len(labels)
    if not labels:
        assert len(findings.faults) == 1 and f'none of {len(data["annotations"])} is of a class' in findings.faults[0]
        assert not lost or f'{lost} of 6 ' in findings.faults[0]
    elif findings.faults:
        assert lost == len(findings.faults) == 1 and 'lies outside its image' in findings.faults[0]
    else:
        counts = [
            int(line.split(': annotations: ')[1].split()[0]) for line in findings.left_out if 'annotations:' in line
        ]
        assert sum(counts) == lost
        missing = [name for label, name in enumerate(CLASSES) if label not in labels]
        assert [name for name in CLASSES for line in findings.left_out if f'{name!r} have no object' in line] == missing


def test_rle_without_poly2mask_against_mmdet(tmp_path):
    """``poly2mask=False`` takes polygons only: objects with RLE are not learned from."""
    data = make_coco()
    ann_file = write_coco(tmp_path, data)
    loads = [LoadAnnotations(with_bbox=True, with_mask=True, poly2mask=False)]
    dataset = mmdet_dataset(ann_file, pipeline=loads)
    flags = [info['gt_ignore_flags'].tolist() for info in (loads[0](dict(dataset.get_data_info(i), img_shape=SIZE,
             ori_shape=SIZE)) for i in range(3))]  # fmt: skip
    assert flags == [[False, True]] * 3
    findings = check_annotations(ann_file, CLASSES, masks=True, polygons_only=True)
    assert not findings.faults and '3 of 6 have RLE masks' in findings.left_out[0]
    assert "'nut' have no object" in findings.left_out[1]


FILTERS = [
    None,
    dict(filter_empty_gt=True, min_size=32),
    dict(min_size=49),
    dict(min_size=48),
    dict(filter_empty_gt=False, min_size=1000),
    dict(filter_empty_gt=True),
]


@pytest.mark.parametrize('filter_cfg', FILTERS)
@pytest.mark.parametrize('empty', [0, 1, 3])
@pytest.mark.parametrize('indices', [None, 2, 0, [0], [5]])
def test_filters_against_mmdet(tmp_path, filter_cfg, empty, indices):
    data = make_coco()
    data['annotations'] = [one for one in data['annotations'] if one['image_id'] > empty]
    ann_file = write_coco(tmp_path, data)
    try:
        left = len(mmdet_dataset(ann_file, filter_cfg=filter_cfg, indices=indices))
    except (ValueError, IndexError):
        left = 0
    findings = check_annotations(
        ann_file, CLASSES, objects=False, filter_cfg=filter_cfg, indices=indices, key='train_dataloader.dataset'
    )
    assert bool(findings.faults) == (left == 0), findings
    if findings.faults:
        assert 'train_dataloader.dataset.' in findings.faults[0]
    elif indices is None:
        assert sum(int(line.split(' takes away ')[1].split()[0]) for line in findings.left_out) == 3 - left


def make_config(tmp_path, monkeypatch, data=None, **dataset):
    """A config of a two-stage detector, whose datasets are changed by ``dataset``."""
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path, data or make_coco())
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    node = dict(
        type='CocoDataset',
        ann_file='train.json',
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img='images/'),
        pipeline=pipeline,
    )
    node.update(dataset)
    head = dict(num_classes=2)
    return Config(
        dict(
            model=dict(
                rpn_head=dict(num_classes=1), roi_head=dict(bbox_head=[dict(head), dict(head)], mask_head=dict(head))
            ),
            train_dataloader=dict(dataset=node),
            val_dataloader=dict(dataset=dict(copy.deepcopy(node), test_mode=True)),
            val_evaluator=dict(type='CocoMetric', ann_file='train.json', metric=['bbox', 'segm']),
        )
    )


def faults_of(cfg, *splits):
    try:
        check_datasets(cfg, *(splits or ('train', 'val')))
    except DataError as error:
        return error.faults
    return []


def test_a_good_config(tmp_path, monkeypatch):
    cfg = make_config(tmp_path, monkeypatch)
    assert faults_of(cfg) == []
    assert [source.key for source in find_datasets(cfg, 'train')] == ['train_dataloader.dataset']


DATASET = 'train_dataloader.dataset.'
FORMS = [
    (dict(type='Cocodataset'), f"{DATASET}type='Cocodataset' is no dataset that is registered"),
    (dict(data_root='\0'), rf"{DATASET}data_root='.x00' holds a control character, it takes a path without"),
    (dict(ann_file='a\nb.json'), rf"{DATASET}ann_file='a.nb.json' holds a control character, it takes a path without"),
    (dict(filter_cfg=''), f"{DATASET}filter_cfg='' is no dict, it takes dict"),
    (dict(data_prefix=None), f'{DATASET}data_prefix=None is a NoneType'),
    (dict(ann_file=['train.json', 'train.json']), f'{DATASET}ann_file=.* is a list, it takes one path'),
    (dict(data_root=['a', 'b']), f'{DATASET}data_root=.* is a list'),
    (dict(data_prefix='images/'), rf"{DATASET}data_prefix='images/' is a str, it takes dict\(img='images/'\)"),
    (dict(data_prefix=dict(img=None)), f'{DATASET}data_prefix=.*None.* takes paths'),
    (dict(metainfo=CLASSES), rf'{DATASET}metainfo=.* is a (tuple|list), it takes dict\(classes'),
    (dict(metainfo=dict(classes=(CLASSES,))), rf'{DATASET}metainfo.classes=\(.*\(?.*it takes a tuple of names'),
    (dict(metainfo=dict(classes=None)), f'{DATASET}metainfo.classes=None, it takes a tuple of names'),
    (dict(metainfo=dict(classes=(1, 2))), rf'{DATASET}metainfo.classes=.*1, 2.*, it takes a tuple of names'),
    (dict(metainfo=dict(CLASSES=CLASSES)), f'{DATASET}metainfo.CLASSES=.* takes the key classes'),
    (dict(classes=CLASSES), rf'{DATASET}classes=.* is a key of MMDetection 2.x; MMDetection 3.x takes metainfo'),
    (
        dict(img_prefix='images/'),
        f"{DATASET}img_prefix='images/' is a key of MMDetection 2.x; MMDetection 3.x takes data_prefix",
    ),
    (dict(file_client_args=dict(backend='disk')), f'{DATASET}file_client_args=.* MMDetection 3.x takes backend_args'),
    (dict(filter_cfg=dict(min_size='32')), f'{DATASET}filter_cfg=.* takes dict'),
    (
        dict(annfile='train.json'),
        f"{DATASET}annfile='train.json' is no key of CocoDataset, it takes ann_file, backend_args",
    ),
    (dict(pipeline='load'), f"{DATASET}pipeline='load' is a str"),
]


@pytest.mark.parametrize('dataset, message', FORMS)
def test_forms_of_values(tmp_path, monkeypatch, dataset, message):
    """Each is named, and MMDetection does not read it: it crashes, or learns from nothing."""
    faults = faults_of(make_config(tmp_path, monkeypatch, **dataset), 'train')
    assert len(faults) == 1
    assert_matches(message, faults[0])
    kwargs = dict(dict(metainfo=dict(classes=CLASSES), data_prefix=dict(img='images/'), pipeline=[]), **dataset)
    kwargs['filter_cfg'] = dataset.get('filter_cfg')
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            nothing = learned(DATASETS.build(dict(dict(type='CocoDataset', ann_file='train.json'), **kwargs)))
        except Exception:
            nothing = []
    assert nothing == []


@pytest.mark.parametrize('classes', [list(CLASSES), CLASSES, 'names.txt'])
def test_forms_that_mmdet_reads(tmp_path, monkeypatch, classes):
    (tmp_path / 'names.txt').write_text('bolt\nnut\n')
    cfg = make_config(tmp_path, monkeypatch, metainfo=dict(classes=classes))
    assert faults_of(cfg) == []
    assert len(learned(mmdet_dataset(tmp_path / 'train.json', metainfo=dict(classes=classes)))) == 6
    cfg.model.roi_head.mask_head.num_classes = 80
    assert faults_of(cfg, 'train') == [
        "model.roi_head.mask_head.num_classes=80, but train_dataloader.dataset has 2 classes: 'bolt', 'nut'"
    ]


def test_keys_of_mmdet_2(tmp_path, monkeypatch):
    cfg = Config(dict(data=dict(train=dict(type='CocoDataset', ann_file='train.json'))))
    assert [fault.partition(';')[0] for fault in faults_of(cfg)] == ['data is a key of MMDetection 2.x']


@pytest.mark.parametrize('where', ['detector', 'teacher', 'student'])
def test_heads_of_nested_models_are_compared(tmp_path, monkeypatch, where):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.model.roi_head.bbox_head[1].num_classes = 3
    cfg.model = dict(type='SoftTeacher', **{where: cfg.model})
    assert faults_of(cfg, 'train') == [
        f"model.{where}.roi_head.bbox_head[1].num_classes=3, but train_dataloader.dataset has 2 classes: 'bolt', 'nut'"
    ]


@pytest.mark.parametrize('head', ['bbox_head', 'mask_head', 'query_head'])
def test_heads_of_single_stages_are_compared(tmp_path, monkeypatch, head):
    cfg = make_config(tmp_path, monkeypatch)
    cfg.model = {head: dict(num_classes=80)}
    assert len(faults_of(cfg, 'train')) == 1
    cfg.model[head].num_classes = 2
    assert faults_of(cfg, 'train') == []


@pytest.mark.parametrize('annotations', ['missing', []])
def test_unlabeled_images_of_semi_supervised_training(tmp_path, monkeypatch, annotations):
    data = make_coco()
    data.pop('annotations')
    if annotations != 'missing':
        data['annotations'] = annotations
    write_coco(tmp_path, data, 'unlabeled.json')
    cfg = make_config(tmp_path, monkeypatch)
    labeled = cfg.train_dataloader.dataset
    unlabeled = dict(labeled, ann_file='unlabeled.json')
    branches = dict(type='MultiBranch', unsup_student=[dict(type='PackDetInputs')])
    for loader, count in ((dict(type='LoadEmptyAnnotations'), 0), (dict(type='LoadAnnotations', with_bbox=True), 1)):
        unlabeled['pipeline'] = [dict(type='LoadImageFromFile'), loader, branches]
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[labeled, unlabeled])
        faults = faults_of(cfg, 'train')
        assert len(faults) == count and all(fault.startswith('unlabeled.json: ') for fault in faults)
    assert len(mmdet_dataset(tmp_path / 'unlabeled.json')) == 3


def test_the_file_of_the_evaluator_is_checked_too(tmp_path, monkeypatch):
    data = make_coco()
    drop('iscrowd')(data)
    write_coco(tmp_path, data, 'other.json')
    cfg = make_config(tmp_path, monkeypatch)
    cfg.val_evaluator = [dict(type='CocoMetric', ann_file='other.json', metric='bbox')]
    assert [fault.split(' ')[0] for fault in faults_of(cfg, 'val')] == ['other.json:']
    cfg.val_evaluator.append(dict(cfg.val_evaluator[0], metric='segm'))  # both are of the only dataset
    assert {fault.split(' ')[0] for fault in faults_of(cfg, 'val')} == {'other.json:'}
    cfg.val_evaluator.pop()
    cfg.val_evaluator[0].ann_file = ['train.json', 'other.json']
    assert faults_of(cfg, 'val')[0].startswith('val_evaluator[0].ann_file=[')
    cfg.val_evaluator[0].ann_file = None  # the metric then collects what the dataset loads
    assert faults_of(cfg, 'val') == []


def test_a_test_set_without_annotations_is_for_writing_results(tmp_path, monkeypatch):
    data = make_coco()
    data.pop('annotations')
    cfg = make_config(tmp_path, monkeypatch, data)
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = dict(cfg.val_evaluator, format_only=True, outfile_prefix='results')
    assert faults_of(cfg, 'test') == []
    cfg.test_evaluator.format_only = False
    assert "has no list 'annotations'" in faults_of(cfg, 'test')[0]


@pytest.mark.parametrize('ann_file', ['', None])
def test_splits_without_an_annotation_file_are_passed_over(tmp_path, monkeypatch, ann_file):
    cfg = make_config(tmp_path, monkeypatch, ann_file=ann_file)
    assert find_datasets(cfg, 'train') == [] and faults_of(cfg, 'train') == []


@pytest.mark.skipif('V3DetDataset' not in DATASETS, reason='this mmdet has no V3Det')
def test_a_dataset_class_that_knows_no_classes(tmp_path, monkeypatch):
    """V3Det reads them from a file of its own."""
    cfg = make_config(tmp_path, monkeypatch, type='V3DetDataset', metainfo=None)
    assert faults_of(cfg, 'train') == []
    cfg = make_config(tmp_path, monkeypatch, type='V3DetDataset')
    assert faults_of(cfg, 'train') == []


def image_fault(tmp_path, image_writer, decode=False, pipeline=None, monkeypatch=None, name='1.png'):
    data = make_coco()
    data['images'][0]['file_name'] = name
    (tmp_path / 'images').mkdir(exist_ok=True)
    image_writer(tmp_path / 'images' / name)
    write_coco(tmp_path, data)
    cfg = make_config(tmp_path, monkeypatch, data, **(dict(pipeline=pipeline) if pipeline else {}))
    try:
        check_datasets(cfg, 'train', decode_images=decode)
    except DataError as error:
        return error.faults
    return []


def deep(path):
    cv2.imwrite(str(path), np.full((*SIZE, 3), 4095, np.uint16))


def pages(path):
    frames = [Image.new('RGB', SIZE[::-1], (90 * i, 0, 0)) for i in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def turned(path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new('RGB', SIZE[::-1]).save(path, exif=exif)


LOAD = dict(type='LoadImageFromFile')
TURNED = r'is 64 x 48 \(height x width\), as its EXIF data turn it, annotated at 48 x 64'
IMAGE_CASES = [
    (deep, '1.png', [LOAD], 'holds 16 bits per channel'),
    (deep, '1.tif', [dict(LOAD, color_type='grayscale')], 'holds 16 bits per channel'),
    (deep, '1.png', [dict(LOAD, color_type='unchanged')], ''),
    (deep, '1.tif', [dict(LOAD, imdecode_backend='tifffile')], ''),
    (deep, '1.png', [dict(LOAD, imdecode_backend='pillow')], 'holds 16 bits per channel'),
    (deep, '1.png', [dict(LOAD, color_type='color_ignore_orientation')], 'holds 16 bits per channel'),
    (deep, '1.png', [dict(type='LoadMultiChannelImageFromFiles')], ''),
    (lambda path: np.save(path, np.zeros(SIZE)), '1.npy', [dict(type='LoadArray')], ''),
    (pages, '1.tif', [LOAD], 'holds 3 pages'),
    (pages, '1.gif', [dict(LOAD, color_type='unchanged')], 'holds 3 pages'),
    (pages, '1.webp', [LOAD], 'holds 3 pages'),
    (pages, '1.tif', [dict(LOAD, imdecode_backend='tifffile')], ''),
    (turned, '1.jpg', [LOAD], TURNED),
    (turned, '1.jpg', [dict(LOAD, color_type='color_ignore_orientation')], ''),
    (turned, '1.jpg', [dict(LOAD, imdecode_backend='pillow')], TURNED),
    (lambda path: Image.new('RGB', (10, 10)).save(path), '1.png', [LOAD], 'is 10 x 10'),
    (lambda path: path.write_text('404'), '1.png', [LOAD], 'not readable as an image'),
]


@pytest.mark.parametrize('decode', [False, True])
@pytest.mark.parametrize('writer, name, pipeline, message', IMAGE_CASES)
def test_images_that_are_not_loaded_as_they_are(tmp_path, monkeypatch, writer, name, pipeline, message, decode):
    faults = image_fault(tmp_path, writer, decode, pipeline, monkeypatch, name)
    assert len(faults) == bool(message)
    if message:
        assert_matches(rf"train.json: image '{name}' \(id 1\):? {message}", faults[0])


def test_images_of_200_megapixels(tmp_path, monkeypatch):
    """Pillow calls them bombs; OpenCV, by which they are loaded, does not."""
    data = make_coco(1)
    data['images'][0].update(height=10000, width=20000)
    data['annotations'] = data['annotations'][:1]
    write_coco(tmp_path, data)
    Image.new('L', (20000, 10000)).save(tmp_path / 'images' / '1.png', compress_level=1)
    findings = check_annotations(tmp_path / 'train.json', CLASSES, tmp_path / 'images', decode_images=True)
    assert findings.faults == []


def test_damage_is_found_by_decoding(tmp_path, monkeypatch):
    def cut(path):
        Image.effect_noise(SIZE[::-1], 50).save(path)
        path.write_bytes(path.read_bytes()[:-500])

    assert image_fault(tmp_path, cut, False, None, monkeypatch) == []
    assert 'truncated' in image_fault(tmp_path, cut, True, None, monkeypatch)[0]


def test_references_of_another_type_are_named_as_what_they_are(tmp_path):
    data = make_coco()
    change_first(image_id='1', category_id='1')(data)
    data['annotations'][1].update(image_id=9)
    data['annotations'][2].update(category_id=None)
    faults = check_annotations(write_coco(tmp_path, data), CLASSES).faults
    assert [fault.split(': ', 2)[2] for fault in faults] == [
        "image_id is '1', a string; ids are numbers, it takes 1",
        "category_id is '1', a string; ids are numbers, it takes 1",
        'image_id is 9, which no image has; there are 1, 2, 3',
        'category_id is None, it takes the id of a category (a whole number); there are 1, 2, 3',
    ]


@pytest.mark.parametrize(
    'content', [b'\xef\xbb\xbf{}', '{"images": "螺栓"}'.encode('gb18030'), b'[' * 100000, b'1e999']
)
def test_files_that_pycocotools_does_not_read(tmp_path, content):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(Exception), contextlib.redirect_stdout(io.StringIO()):  # noqa: B017
        COCO(str(tmp_path / 'a.json'))
    faults = check_annotations(tmp_path / 'a.json', CLASSES).faults
    assert len(faults) == 1 and faults[0].startswith(f'{tmp_path / "a.json"}: ')


@pytest.mark.slow
def test_configs_of_mmdet_are_understood(monkeypatch):
    """None of the forms in MMDetection's own configs is refused, and none crashes the check."""
    root = f'{get_installed_path("mmdet")}/.mim/configs'
    configs = [path for path in sorted(Path(root).rglob('*.py')) if '_base_' not in path.parts]
    looked_at, wrong = 0, []
    for path in configs:
        try:
            cfg = Config.fromfile(path)
        except Exception:  # of another framework, or a package that is not installed
            continue
        for split in ('train', 'val', 'test'):
            assert form_faults(cfg, split) == [], path
            looked_at += len(find_datasets(cfg, split))
            find_evaluations(cfg, split)
        # A config of ByteTrack names a metric MOTChallengeMetrics, and one of VOC gives CocoMetric a key of VOCMetric.
        # mmengine can build neither.
        wrong += [
            (path.name, fault)
            for fault in faults_of(cfg, 'train', 'val', 'test')
            if not re.search("no such|'MOTChallengeMetrics' is no metric|eval_mode='11points' is no key", fault)
        ]
    assert not wrong
    assert looked_at > 1000


def test_classes_of_another_order_than_in_training(tmp_path):
    """Each file fits its own classes, but MMDetection numbers labels by the order of each dataset."""
    dataloaders, labels = {}, {}
    for split, classes in (('train', CLASSES), ('val', CLASSES[::-1])):
        data = make_coco()
        data['categories'].sort(key=lambda one: [*classes, 'washer'].index(one['name']))
        ann_file = write_coco(tmp_path / split, data)
        dataset = dict(ann_file=str(ann_file), metainfo=dict(classes=classes), test_mode=split == 'val', pipeline=[])
        dataloaders[f'{split}_dataloader'] = dict(dataset=dict(dataset, type='CocoDataset', data_prefix=dict(img='')))
        labels[split] = learned(mmdet_dataset(ann_file, metainfo=dict(classes=classes)))
    assert labels['val'] == [1 - label for label in labels['train']]  # the same objects
    cfg = Config(dict(**dataloaders, val_evaluator=dict(type='CocoMetric', ann_file=str(ann_file))))
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.data_prefix.img = str(tmp_path / split / 'images')
    check_datasets(cfg, 'train')
    with pytest.raises(
        DataError, match='val_dataloader.dataset.metainfo.classes is .* the training has its classes in another'
    ):
        check_datasets(cfg, 'train', 'val')
    assert not list(order_faults(cfg, 'val', CLASSES[::-1])) and list(order_faults(cfg, 'val', CLASSES))
    assert list(order_faults(cfg, 'val', (CLASSES[0], 'other name')))  # one class is at another place
    assert not list(order_faults(cfg, 'val', (CLASSES[1], 'other name')))  # one has another name, at the same place
    both = Config(dict(train_dataloader=dict(dataset=dict(type='ConcatDataset', datasets=[]))))
    both.train_dataloader.dataset.datasets = [cfg[f'{split}_dataloader'].dataset for split in ('train', 'val')]
    assert len(list(order_faults(both, 'train'))) == 1  # half of the labels would be swapped
    cfg.val_dataloader.dataset.return_classes = True  # a model that reads the names
    assert not list(order_faults(cfg, 'val'))
