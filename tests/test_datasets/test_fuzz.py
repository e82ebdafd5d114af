# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Good inputs, spoiled at random: each is read right, or refused in lines that name file and key. Nothing crashes, and
nothing is left out without a line that says how much."""

import base64
import contextlib
import copy
import io
import json
import os
import re
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from coco_data import CLASSES, SIZE, make_coco, write_coco
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmpanet.datasets import convert_labelme
from mmpanet.datasets.checks import check_annotations, check_datasets, find_datasets
from mmpanet.datasets.converters.mask_files import MASK_SUFFIXES, read_mask
from mmpanet.utils.errors import DataError, MMPanetError

COMMON = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
QUICK = settings(max_examples=25, derandomize=True, **COMMON)
LONG = settings(max_examples=int(os.environ.get('FUZZ_EXAMPLES', 2000)), print_blob=True, **COMMON)
PROFILES = [pytest.param(QUICK, id='quick'), pytest.param(LONG, id='long', marks=pytest.mark.slow)]

WILD = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, 2, 3, 7, -1, 0.0, 1.0, 2.0, 0.5, -0.5, 1e20, 1e300, float('nan'), float('inf'), 2**40]
    ),
    st.sampled_from(['', '0', '1', ' 1', '1.0', 'bolt', 'nut', 'x' * 500, '\udc80', '\0', '\n', '/', '..', 'images']),
    st.sampled_from([[], {}, [[]], [None], [0, 0, 0, 0], [1, 2, 3], {'counts': 'PP', 'size': [48, 64]}, [[1, 2] * 3]]),
    st.integers(-100, 100),
    st.floats(width=32),
)


def places(node, path=()):
    """All places in a JSON value."""
    found = [path] if path else []
    if isinstance(node, dict):
        for key in node:
            found += places(node[key], (*path, key))
    elif isinstance(node, list):
        for i, item in enumerate(node[:80]):
            found += places(item, (*path, i))
    return found


@st.composite
def spoiled(draw, good, most=3):
    """A copy of a JSON value with a few changes."""
    data = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, most))):
        everywhere = places(data)
        if not everywhere:
            break
        *parents, last = draw(st.sampled_from(everywhere))
        node = data
        for key in parents:
            node = node[key]
        change = draw(st.sampled_from(['set', 'set', 'delete', 'double', 'rename', 'text', 'float']))
        if change == 'set':
            node[last] = copy.deepcopy(draw(WILD))
        elif change == 'delete':
            del node[last]
        elif change == 'double' and isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        elif change == 'rename' and isinstance(node, dict):
            node[str(last).upper()] = node.pop(last)
        elif change == 'text' and not isinstance(node[last], (dict, list)):
            node[last] = str(node[last])
        elif change == 'float' and isinstance(node[last], int):
            node[last] = float(node[last])
    return data


@contextlib.contextmanager
def quiet_folder():
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield Path(folder)


def assert_lines(faults, file):
    """Each fault is one line that begins with the file and says where in it."""
    for fault in faults:
        assert fault.startswith(f'{file}: ') and '\n' not in fault, fault
        assert re.search(r'annotations|images|categories|classes|image |JSON|no image is left', fault), fault


# Annotation files


@pytest.mark.parametrize('profile', PROFILES)
def test_annotation_files(profile):
    profile(given(data=spoiled(make_coco(2)), evaluated=st.booleans())(annotation_file_is_right_or_refused))()


def annotation_file_is_right_or_refused(data, evaluated):
    with quiet_folder() as folder:
        write_coco(folder, make_coco(2))
        ann_file = folder / 'spoiled.json'
        ann_file.write_text(json.dumps(data))
        findings = check_annotations(ann_file, CLASSES, folder / 'images', masks=True, evaluated=evaluated)
        assert_lines(findings.faults, ann_file)
        if findings.faults:
            return
        load = LoadAnnotations(with_bbox=True, with_mask=True)
        dataset = CocoDataset(
            ann_file=str(ann_file),
            metainfo=dict(classes=CLASSES),
            data_prefix=dict(img=str(folder / 'images')),
            pipeline=[],
        )
        learned = 0
        for i in range(len(dataset)):
            result = load(dict(dataset.get_data_info(i), img_shape=SIZE, ori_shape=SIZE))
            assert len(result['gt_masks']) == len(result['gt_bboxes_labels'])
            learned += int((~result['gt_ignore_flags']).sum())
        counted = sum(
            int(match[1]) for match in map(re.compile(r'annotations: (\d+) of').search, findings.left_out) if match
        )
        assert learned + counted == len(data['annotations'])
        if evaluated:
            assert average_precision(ann_file, 'bbox') == pytest.approx(1) or findings.left_out
            assert average_precision(ann_file, 'segm') == pytest.approx(1) or counted or hidden_mask(ann_file)


def average_precision(ann_file, kind):
    """AP of detections equal to the ground truth."""
    truth = COCO(str(ann_file))
    entries = [one for one in truth.anns.values() if one['category_id'] != 3]
    detections = [
        dict(image_id=one['image_id'], category_id=one['category_id'], score=0.9, bbox=one['bbox'])
        if kind == 'bbox'
        else dict(image_id=one['image_id'], category_id=one['category_id'], score=0.9, segmentation=truth.annToRLE(one))
        for one in entries
    ]
    evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(detections)), kind)
    evaluation.params.catIds = truth.getCatIds(catNms=list(CLASSES))
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def hidden_mask(ann_file):
    """A mask without a pixel has no overlap, with itself neither."""
    truth = COCO(str(ann_file))
    return any(not truth.annToMask(one).any() for one in truth.anns.values())


@pytest.mark.parametrize('profile', PROFILES)
def test_bytes_of_annotation_files(profile):
    edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=3)
    profile(given(edits=edits)(damaged_annotation_file_is_refused))()


def edit_bytes(content, edits):
    for place, new, removed in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + removed :]
    return content


def damaged_annotation_file_is_refused(edits):
    with quiet_folder() as folder:
        ann_file = folder / 'a.json'
        ann_file.write_bytes(edit_bytes(json.dumps(make_coco(1)).encode(), edits))
        assert_lines(check_annotations(ann_file, CLASSES, masks=True, evaluated=True).faults, ann_file)


# LabelMe


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
    edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4)), min_size=1, max_size=3)
    profile(given(edits=edits)(damaged_labelme_file_is_named))()


def damaged_labelme_file_is_named(edits):
    converted_or_named(edit_bytes(json.dumps(labelme_file()).encode(), edits), None, True)


def converted_or_named(content, data, beside):
    with quiet_folder() as folder:
        (folder / 'in').mkdir()
        for name in 'bc':
            (folder / 'in' / f'{name}.png').write_bytes(picture())
            (folder / 'in' / f'{name}.json').write_text(json.dumps(dict(labelme_file(), imagePath=f'{name}.png')))
        (folder / 'in' / 'a.json').write_bytes(content)
        if beside:
            (folder / 'in' / 'a.png').write_bytes(picture())
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


# Masks


# What Pillow saves without a change
SUFFIXES = dict(
    uint8=MASK_SUFFIXES,
    bool=('.png', '.tif', '.bmp'),
    P=MASK_SUFFIXES,
    uint16=('.png', '.tif'),
    int32=('.tif',),
    float32=('.tif',),
    LA=('.png', '.tif'),
    RGB=('.png', '.tif', '.bmp'),
    RGBA=('.png', '.tif'),
)


@st.composite
def mask_files(draw):
    """The content of a mask file, and its values where it is whole."""
    kind = draw(st.sampled_from(list(SUFFIXES)))
    suffix = draw(st.sampled_from(SUFFIXES[kind]))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    highest = dict(uint16=60000, int32=70000, float32=300, bool=1).get(kind, 255)
    lowest = -3 if kind in ('int32', 'float32') else 0
    numbers = st.lists(st.integers(lowest, highest), min_size=height * width, max_size=height * width)
    values = np.array(draw(numbers)).reshape(height, width)
    if kind in ('P', 'LA', 'RGB', 'RGBA'):
        image = Image.fromarray(values.astype(np.uint8))
        if kind == 'P':
            image = Image.frombytes('P', image.size, values.astype(np.uint8).tobytes())
            image.putpalette([(91 * i) % 256 for i in range(768)])
        else:
            image = image.convert(kind)
    else:
        image = Image.fromarray(values.astype(kind))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        image.save(file, dict(PNG='PNG', TIF='TIFF', TIFF='TIFF', BMP='BMP', GIF='GIF')[suffix[1:].upper()])
    return file.getvalue(), values, kind


@pytest.mark.parametrize('profile', PROFILES)
def test_masks(profile):
    edits = st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=2), st.integers(0, 3)), max_size=2)

    def check(file, edits):
        content, values, kind = file
        spoiled_content = edit_bytes(content, edits)
        try:
            found = read_mask(spoiled_content, 'mask')
        except DataError as error:
            assert str(error).startswith('mask: ') and '\n' not in str(error)
            assert edits or (kind == 'P' and 'holds colors' in str(error)), error  # in a GIF
            return
        if spoiled_content == content:
            np.testing.assert_array_equal(found, values)
        else:  # as Pillow reads it
            with Image.open(io.BytesIO(spoiled_content)) as image:
                if image.mode in ('L', 'P', '1') and image.format != 'GIF':
                    np.testing.assert_array_equal(found, np.array(image))

    profile(given(file=mask_files(), edits=edits)(check))()


# Configs


def dataset_config():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    return dict(
        type='CocoDataset',
        data_root='',
        ann_file='train.json',
        metainfo=dict(classes=list(CLASSES)),
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=pipeline,
        test_mode=False,
    )


@pytest.mark.parametrize('profile', PROFILES)
def test_configs(profile, tmp_path, monkeypatch):
    write_coco(tmp_path, make_coco(2))
    monkeypatch.chdir(tmp_path)
    heads = dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))

    def check(node):
        cfg = Config(
            dict(model=dict(roi_head=copy.deepcopy(heads)), train_dataloader=dict(dataset=copy.deepcopy(node)))
        )
        with quiet_folder():
            try:
                check_datasets(cfg, 'train')
            except MMPanetError as error:
                for fault in error.faults:
                    assert re.match(r'(train_dataloader|model)\b|.*train\.json: |.*: no such annotation file', fault), (
                        fault
                    )
                    assert '\n' not in fault, fault
                return
            if not find_datasets(cfg, 'train'):
                return  # not a dataset that is read in COCO format from a file
            wanted = {key: value for key, value in node.items() if key not in ('type', 'pipeline')}
            dataset = CocoDataset(pipeline=[], **wanted)
            labels = [one['bbox_label'] for i in range(len(dataset)) for one in dataset.get_data_info(i)['instances']]
            assert sorted(labels) == [0, 0, 1, 1]

    profile(given(node=spoiled(dataset_config()))(check))()
