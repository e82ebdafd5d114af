# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Wrong annotation files and images, each handed to a training."""

import copy
import json
from pathlib import Path
from typing import Callable

import cv2
import numpy as np
from corpus import LOGS, Case, tool
from PIL import Image

ANNOTATIONS, IMAGES = 'Annotations', 'Images'
CLASSES = ('disc', 'ring')

# One file says all: a config that inherits takes half a second to load.
CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
metainfo = dict(classes=('disc', 'ring'))
dataset = dict(type='CocoDataset', metainfo=metainfo, data_prefix=dict(img='images/'), pipeline=pipeline)
train_dataloader = dict(dataset=dict(ann_file='train.json', **dataset), **loader)
val_dataloader = dict(dataset=dict(ann_file='val.json', test_mode=True, **dataset), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file='val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
anchors = dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[4, 8, 16, 32])
coder = dict(type='DeltaXYWHBBoxCoder')
assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3)
sampler = dict(type='RandomSampler', num=8, pos_fraction=0.5, add_gt_as_proposals=True)
rpn_sampler = dict(type='RandomSampler', num=8, pos_fraction=0.5, add_gt_as_proposals=False)
pooling = dict(type='AdaptiveFeaturePooling', out_channels=8, featmap_strides=[4, 8, 16, 32])
model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_mask=True, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=4, norm_cfg=dict(type='BN'), frozen_stages=-1),
    neck=dict(type='PANetNeck', in_channels=[4, 8, 16, 32], out_channels=8, num_outs=4),
    rpn_head=dict(type='RPNHead', in_channels=8, feat_channels=8, anchor_generator=anchors, bbox_coder=coder),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=1), **pooling),
        bbox_head=dict(type='PANetShared2FCBBoxHead', in_channels=8, fc_out_channels=8, roi_feat_size=7,
                       num_classes=2, bbox_coder=coder),
        mask_roi_extractor=dict(roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=1), **pooling),
        mask_head=dict(type='FCFusionMaskHead', in_channels=8, conv_out_channels=8, num_convs=2, fc_branch_start=2,
                       num_classes=2)),
    train_cfg=dict(
        rpn=dict(assigner=assigner, sampler=rpn_sampler, allowed_border=-1, pos_weight=-1),
        rpn_proposal=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(assigner=assigner, sampler=sampler, mask_size=28, pos_weight=-1)),
    test_cfg=dict(
        rpn=dict(nms_pre=50, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10, mask_thr_binary=0.5)))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1e-4))  # by any seed
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(type='LoggerHook'))
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[])
log_level = 'ERROR'
"""


def good_data() -> dict:
    """Two images of 32 x 48 with a disc and a ring each."""
    size = [32, 48]
    disc = dict(
        category_id=1, iscrowd=0, area=96, bbox=[2.0, 3.0, 12.0, 8.0], segmentation=[[2, 3, 14, 3, 14, 11, 2, 11]]
    )
    # Runs down the columns: 20 of them empty, then 8 pixels of every 32, ten times
    runs = [20 * 32 + 4] + [8, 24] * 9 + [8, 20 + 18 * 32]
    ring = dict(
        category_id=2, iscrowd=0, area=80, bbox=[20.0, 4.0, 10.0, 8.0], segmentation=dict(size=size, counts=runs)
    )
    images = [dict(id=i, file_name=f'{i}.png', height=32, width=48) for i in (1, 2)]
    annotations = [
        dict(id=2 * image['id'] + j, image_id=image['id'], **copy.deepcopy(kind))
        for image in images
        for j, kind in enumerate((disc, ring))
    ]
    return dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=1, name='disc'), dict(id=2, name='ring'), dict(id=7, name='rod')],
    )


def write_project(folder: Path) -> None:
    """A config and data that train."""
    (folder / 'images').mkdir()
    for i in (1, 2):
        cv2.imwrite(str(folder / 'images' / f'{i}.png'), np.full((32, 48, 3), 60 * i, np.uint8))
    for split in ('train', 'val'):
        (folder / f'{split}.json').write_text(json.dumps(good_data()))
    (folder / 'config.py').write_text(CONFIG)


def trains_on(change: Callable[[dict], object], *words: str):
    """Train on annotations that are changed."""

    def prepare(folder):
        write_project(folder)
        data = good_data()
        change(data)
        (folder / 'train.json').write_text(json.dumps(data))
        return tool('train', 'config.py', '--work-dir', LOGS, *words)

    return prepare


def trains_with(change: Callable[[Path], object], *words: str):
    """Train in a folder that is changed."""

    def prepare(folder):
        write_project(folder)
        change(folder)
        return tool('train', 'config.py', '--work-dir', LOGS, *words)

    return prepare


def looks_at(change: Callable[[Path], object]):
    """Let ``tools/misc/check_dataset.py`` look at the images of a folder that is changed."""

    def prepare(folder):
        write_project(folder)
        change(folder)
        return tool('check_dataset', 'config.py', '--images')

    return prepare


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def another_size(folder: Path) -> None:
    cv2.imwrite(str(folder / 'images' / '2.png'), np.zeros((48, 32, 3), np.uint8))


def text_for_image(folder: Path) -> None:
    (folder / 'images' / '1.png').write_text('404: not found')


def first(**changes):
    """Change the first annotation, a disc of one polygon."""
    return lambda data: data['annotations'][0].update(changes)


def second(**changes):
    """Change the second annotation, a ring with a RLE."""
    return lambda data: data['annotations'][1]['segmentation'].update(changes)


def evaluates_on(change: Callable[[dict], object]):
    """Train, and evaluate on annotations that are changed."""

    def prepare(folder):
        write_project(folder)
        data = good_data()
        change(data)
        (folder / 'val.json').write_text(json.dumps(data))
        return tool('train', 'config.py', '--work-dir', LOGS)

    return prepare


def with_config(old: str, new: str, name: str = 'train'):
    """Train, or use another tool, with a config that is changed."""

    def prepare(folder):
        write_project(folder)
        assert old in CONFIG
        (folder / 'config.py').write_text(CONFIG.replace(old, new))
        return tool(name, 'config.py', *(() if name == 'check_dataset' else ('--work-dir', LOGS)))

    return prepare


def of_16_bits(folder: Path) -> None:
    cv2.imwrite(str(folder / 'images' / '1.png'), np.full((32, 48), 4000, np.uint16))


def of_two_pages(folder: Path) -> None:
    pages = [Image.new('RGB', (48, 32), (value, 0, 0)) for value in (0, 255)]
    pages[0].save(folder / 'images' / '1.png', save_all=True, append_images=pages[1:])


NAN = float('nan')
DATASET = 'train_dataloader.dataset'

CASES = [
    Case(
        ANNOTATIONS,
        'no annotation file',
        trains_with(lambda f: (f / 'train.json').unlink()),
        1,
        ('train.json', 'no such', 'annotation file'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file is cut off',
        trains_with(lambda f: cut_in_half(f / 'train.json')),
        1,
        ('train.json', 'char', 'not a JSON file'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file of the validation is no JSON',
        trains_with(lambda f: (f / 'val.json').write_text('<xml/>')),
        1,
        ('val.json', 'char 0', 'not a JSON file'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file holds a list',
        trains_with(lambda f: (f / 'train.json').write_text('[]')),
        1,
        ('train.json', 'a list', 'images, annotations and categories'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file without categories',
        trains_on(lambda d: d.pop('categories')),
        1,
        ('train.json.*categories', "'images', 'annotations'", 'images, annotations and categories'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file without annotations',
        trains_on(lambda d: d.pop('annotations')),
        1,
        ("'annotations'", "but 'images', 'categories'", 'COCO format'),
    ),
    Case(
        ANNOTATIONS,
        'annotation file without images',
        trains_on(lambda d: d.update(images=None)),
        1,
        ("no list 'images'", "'images' is None", 'COCO format'),
    ),
    Case(
        ANNOTATIONS,
        'a list of no images',
        trains_on(lambda d: d.update(images=[], annotations=[])),
        1,
        ('images', 'empty', 'one image or more'),
    ),
    Case(
        ANNOTATIONS,
        'no object of the classes',
        trains_on(lambda d: [a.update(category_id=7) for a in d['annotations']]),
        1,
        ('annotations', 'none of 4', "'disc', 'ring'"),
    ),
    Case(
        ANNOTATIONS,
        'no class is a category',
        trains_on(lambda d: [c.update(name=c['name'].upper()) for c in d['categories']]),
        1,
        ('classes', "'disc', 'ring', which no category", "'DISC', 'RING', 'ROD'"),
    ),
    Case(
        ANNOTATIONS,
        'one of the classes is no category',
        trains_on(lambda d: d['categories'][0].update(name='disk')),
        1,
        ('metainfo.classes', "holds 'disc', which no category", "'disk', 'ring', 'rod'"),
    ),
    Case(
        ANNOTATIONS,
        'classes in another order than the categories',
        trains_on(lambda d: d['categories'].reverse()),
        1,
        ('classes', "'disc', 'ring'", "come as 'ring', 'disc'"),
    ),
    Case(
        ANNOTATIONS,
        'classes is one string',
        trains_with(lambda f: (f / 'config.py').write_text(CONFIG.replace("('disc', 'ring'))", "('disc'))"))),
        1,
        (f'{DATASET}.metainfo.classes', "='disc'", r"a tuple of names; with a single name: \('disc', \)"),
    ),
    Case(
        ANNOTATIONS,
        'classes holds a name twice',
        trains_with(lambda f: (f / 'config.py').write_text(CONFIG.replace("('disc', 'ring'))", "('disc', 'disc'))"))),
        1,
        (f'{DATASET}.metainfo.classes', "'disc' twice", 'each once'),
    ),
    Case(
        ANNOTATIONS,
        'num_classes of a head is not the number of classes',
        trains_with(lambda f: None, '--cfg-options', 'model.roi_head.mask_head.num_classes=80'),
        1,
        ('model.roi_head.mask_head.num_classes', '=80', "2 classes: 'disc', 'ring'"),
    ),
    Case(
        ANNOTATIONS,
        'annotation file of the evaluator is missing',
        trains_with(
            lambda f: (f / 'config.py').write_text(
                CONFIG.replace("'CocoMetric', ann_file='val.json'", "'CocoMetric', ann_file='valid.json'")
            )
        ),
        1,
        ('val_evaluator.ann_file', "'valid.json'", 'no such file'),
    ),
    Case(
        ANNOTATIONS,
        'a category without a name',
        trains_on(lambda d: d['categories'][2].pop('name')),
        1,
        (r'categories\[2\]', "{'id': 7}", 'id .a whole number. and name'),
    ),
    Case(
        ANNOTATIONS,
        'two categories of one id',
        trains_on(lambda d: d['categories'][1].update(id=1)),
        1,
        (r'categories\[1\]', "id 1 is that of 'disc'", 'its own'),
    ),
    Case(
        ANNOTATIONS,
        'two categories of one name',
        trains_on(lambda d: d['categories'][2].update(name='ring')),
        1,
        (r'categories\[2\]', "'ring' is there twice", 'its own'),
    ),
    Case(
        ANNOTATIONS,
        'two images of one id',
        trains_on(lambda d: d['images'][1].update(id=1)),
        1,
        (r'images\[1\] \(id 1\)', "'1.png'", 'each takes its own'),
    ),
    Case(
        ANNOTATIONS,
        'an image without a height',
        trains_on(lambda d: d['images'][0].pop('height')),
        1,
        (r'images\[0\] \(id 1\): height', 'is None', 'above 0'),
    ),
    Case(
        ANNOTATIONS,
        'an image with a width of 0',
        trains_on(lambda d: d['images'][0].update(width=0)),
        1,
        (r'images\[0\] \(id 1\): width', 'is 0', 'a whole number of pixels above 0'),
    ),
    Case(
        ANNOTATIONS,
        'an image without a file name',
        trains_on(lambda d: d['images'][1].pop('file_name')),
        1,
        (r'images\[1\] \(id 2\): file_name', 'is None', 'a path below the image folder'),
    ),
    Case(
        ANNOTATIONS,
        'an image whose id is a string',
        trains_on(lambda d: d['images'][1].update(id='2')),
        1,
        (r'images\[1\]', "id is '2'", 'takes a whole number'),
    ),
    Case(
        ANNOTATIONS,
        'two annotations of one id',
        trains_on(lambda d: d['annotations'][1].update(id=2)),
        1,
        (r'annotations\[1\]', 'another annotation has the id 2', 'each takes its own'),
    ),
    Case(
        ANNOTATIONS,
        'an annotation of no image',
        trains_on(first(image_id=9)),
        1,
        (r'annotations\[0\] \(id 2\): image_id', 'is 9', 'there are 1, 2'),
    ),
    Case(
        ANNOTATIONS,
        'an annotation of no category',
        trains_on(first(category_id=3)),
        1,
        (r'annotations\[0\] \(id 2\): category_id', 'is 3', 'there are 1, 2, 7'),
    ),
    Case(
        ANNOTATIONS,
        'a box of negative width',
        trains_on(first(bbox=[14.0, 3.0, -12.0, 8.0])),
        1,
        (r'annotations\[0\] \(id 2\): bbox', r'\[14.0, 3.0, -12.0, 8.0\]', 'not below 0'),
    ),
    Case(
        ANNOTATIONS,
        'a box that holds NaN',
        trains_on(first(bbox=[2.0, NAN, 12.0, 8.0])),
        1,
        (r'annotations\[0\] \(id 2\): bbox', r'\[2.0, nan', r'takes \[x, y, width, height\]'),
    ),
    Case(
        ANNOTATIONS,
        'a box of three numbers',
        trains_on(first(bbox=[2.0, 3.0, 12.0])),
        1,
        ('bbox', r'\[2.0, 3.0, 12.0\]', r'\[x, y, width, height\]'),
    ),
    Case(
        ANNOTATIONS,
        'no box',
        trains_on(lambda d: d['annotations'][0].pop('bbox')),
        1,
        ('bbox', 'is None', r'\[x, y, width, height\]'),
    ),
    Case(
        ANNOTATIONS,
        'a box outside its image',
        trains_on(first(bbox=[60.0, 3.0, 12.0, 8.0])),
        1,
        ('bbox', r'\[60.0, 3.0, 12.0, 8.0\]', "outside its image '1.png' of 32 x 48"),
    ),
    Case(
        ANNOTATIONS,
        'a box that reaches far beyond its image',
        trains_on(first(bbox=[2.0, 3.0, 12.0, 8e5])),
        1,
        ('bbox', r'\[2.0, 3.0, 12.0, 800000.0\]', "far beyond its image '1.png' of 32 x 48"),
    ),
    Case(
        ANNOTATIONS,
        'no area',
        trains_on(lambda d: d['annotations'][0].pop('area')),
        1,
        ('area', 'None', 'a number of pixels'),
    ),
    Case(
        ANNOTATIONS,
        'a polygon with an odd number of coordinates',
        trains_on(first(segmentation=[[2, 3, 14, 3, 14, 11, 2]])),
        1,
        (r'segmentation \[0\]', '7 coordinates', 'an even number .* 6 or more'),
    ),
    Case(
        ANNOTATIONS,
        'a polygon of two points',
        trains_on(first(segmentation=[[2, 3, 14, 11]])),
        1,
        (r'segmentation \[0\]', '4 coordinates', '6 or more'),
    ),
    Case(
        ANNOTATIONS,
        'a polygon far beyond its image',
        trains_on(first(segmentation=[[2, 3, 1e9, 3, 14, 11]])),
        1,
        (r'segmentation \[0\]', '1000000000.0', "far beyond its image '1.png' of 32 x 48"),
    ),
    Case(
        ANNOTATIONS,
        'a polygon of pairs',
        trains_on(first(segmentation=[[[2, 3], [14, 3], [14, 11]]])),
        1,
        (r'segmentation \[0\]', r'\[\[2, 3\]', 'x1, y1, x2, y2'),
    ),
    Case(
        ANNOTATIONS,
        'no mask where masks are learned',
        trains_on(lambda d: d['annotations'][0].pop('segmentation')),
        1,
        (r'annotations\[0\] \(id 2\): segmentation', 'is None', 'polygons or RLE'),
    ),
    Case(
        ANNOTATIONS,
        'a RLE of another size than its image',
        trains_on(second(size=[48, 32])),
        1,
        ('segmentation', r'\[48, 32\]', r"'1.png': \[32, 48\] \(height, width\)"),
    ),
    Case(
        ANNOTATIONS,
        'a RLE that ends before its image',
        trains_on(second(counts=[100, 20])),
        1,
        ('segmentation', '120 pixels', 'takes 1536'),
    ),
    Case(
        ANNOTATIONS,
        'a compressed RLE that is cut off',
        trains_on(second(counts='PPYo0n')),
        1,
        ('segmentation', "'PPYo0n'", 'no RLE'),
    ),
    Case(
        ANNOTATIONS,
        'no iscrowd in the annotations of the evaluation',
        evaluates_on(lambda d: [a.pop('iscrowd') for a in d['annotations']]),
        1,
        (r'val.json: annotations\[0\] \(id 2\): iscrowd', 'is missing', r'takes 0 or 1.*\(4 annotations\)'),
    ),
    Case(
        ANNOTATIONS,
        'iscrowd is a string',
        trains_on(first(iscrowd='0')),
        1,
        (r'annotations\[0\] \(id 2\): iscrowd', "is '0'", 'takes 0 or 1'),
    ),
    Case(
        ANNOTATIONS,
        'annotation ids from 0 in the evaluation',
        evaluates_on(first(id=0)),
        1,
        (r'val.json: annotations\[0\] \(id 0\)', 'id is 0', 'number the annotations from 1'),
    ),
    Case(
        ANNOTATIONS,
        'all objects are crowds',
        trains_on(lambda d: [a.update(iscrowd=1) for a in d['annotations']]),
        1,
        ('train.json: annotations: none of 4', '4 of 4 have iscrowd 1', 'not learned from'),
    ),
    Case(
        ANNOTATIONS,
        'an image id that is a string',
        trains_on(first(image_id='1')),
        1,
        (r'annotations\[0\] \(id 2\): image_id', "is '1', a string", 'it takes 1'),
    ),
    Case(
        ANNOTATIONS,
        'a filter that leaves no image',
        with_config('metainfo=metainfo,', 'metainfo=metainfo, filter_cfg=dict(min_size=33),'),
        1,
        ('no image is left', r'train_dataloader.dataset.filter_cfg.min_size=33', 'takes away 2 of 2'),
    ),
    Case(
        ANNOTATIONS,
        'a list of annotation files',
        with_config("ann_file='train.json'", "ann_file=['train.json', 'val.json']"),
        1,
        (f'{DATASET}.ann_file', r"\['train.json', 'val.json'\] is a list", 'takes one path; .*ConcatDataset'),
    ),
    Case(
        ANNOTATIONS,
        'data_prefix is a string',
        with_config("data_prefix=dict(img='images/')", "data_prefix='images/'", 'check_dataset'),
        1,
        (f'{DATASET}.data_prefix', "'images/' is a str", r"takes dict\(img='images/'\)"),
    ),
    Case(
        ANNOTATIONS,
        'a config that says nothing of training',
        with_config(
            "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)",
            'train_cfg = train_dataloader = optim_wrapper = None',
        ),
        1,
        ('config.py: train_dataloader=None', 'train_cfg=None', 'to train, a config must set all of'),
    ),
    Case(
        ANNOTATIONS,
        'a config of MMDetection 2.x',
        with_config('train_dataloader =', 'data = dict(train=dataset)\nold_dataloader =', 'check_dataset'),
        1,
        ('data', 'a key of MMDetection 2.x', '3.x takes train_dataloader'),
    ),
    Case(
        IMAGES,
        'an image of 16 bits',
        trains_with(of_16_bits),
        1,
        (r"image '1.png' \(id 1\)", '16 bits per channel', 'scale the values to 0..255'),
    ),
    Case(
        IMAGES,
        'an image of two pages',
        trains_with(of_two_pages),
        1,
        (r"image '1.png' \(id 1\)", '2 pages', 'save each page as an image'),
    ),
    Case(
        IMAGES,
        'an image that is not there',
        trains_with(lambda f: (f / 'images' / '2.png').unlink()),
        1,
        ("'2.png' .id 2.", 'is not in images', 'data_root, data_prefix.img'),
    ),
    Case(
        IMAGES,
        'no folder of images',
        trains_with(lambda f: (f / 'images').rename(f / 'pictures')),
        1,
        ('train.json', 'no such folder', 'data_root, data_prefix.img'),
    ),
    Case(
        IMAGES,
        'an image that is cut off',
        looks_at(lambda f: cut_in_half(f / 'images' / '2.png')),
        1,
        ("image '2.png'", 'truncated', 'not readable as an image'),
    ),
    Case(
        IMAGES,
        'an image that is text',
        looks_at(text_for_image),
        1,
        ("image '1.png'", 'id 1', 'not readable as an image'),
    ),
    Case(
        IMAGES,
        'an image of another size than annotated',
        looks_at(another_size),
        1,
        ("image '2.png'", '48 x 32', 'annotated at 32 x 48'),
    ),
    Case(
        IMAGES,
        'an image that is text, in a training',
        trains_with(text_for_image),
        1,
        ("image '1.png' .id 1.", 'not readable as an image', 'tools/misc/check_dataset.py'),
    ),
]
