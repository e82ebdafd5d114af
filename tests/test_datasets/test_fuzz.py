# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Good annotation files and masks, spoiled at random: each is read right, or refused in lines that name file and key.

Nothing crashes, and nothing is left out without a line that says how much.
"""

import copy
import io
import json
import re
import warnings

import cv2
import numpy as np
import pytest
from coco_data import CLASSES, SIZE, make_coco, write_coco
from fuzzing import PROFILES, byte_edits, edit_bytes, quiet_folder, spoiled
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations
from mmpanet.datasets.checks import check_annotations
from mmpanet.datasets.converters.mask_files import MASK_SUFFIXES, read_mask
from mmpanet.utils.errors import DataError


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
    profile(given(edits=byte_edits())(damaged_annotation_file_is_refused))()


def damaged_annotation_file_is_refused(edits):
    with quiet_folder() as folder:
        ann_file = folder / 'a.json'
        ann_file.write_bytes(edit_bytes(json.dumps(make_coco(1)).encode(), edits))
        assert_lines(check_annotations(ann_file, CLASSES, masks=True, evaluated=True).faults, ann_file)


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
    edits = st.one_of(st.just([]), byte_edits(2))

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
            return
        try:
            image = Image.open(io.BytesIO(spoiled_content))
        except UnidentifiedImageError:  # some tags of TIFF that Pillow does not know and OpenCV does
            expected = cv2.imdecode(np.frombuffer(spoiled_content, np.uint8), cv2.IMREAD_UNCHANGED)
            np.testing.assert_array_equal(found, expected if expected.ndim == 2 else expected[..., 0])
            return
        if image.mode in ('L', 'P', '1') and image.format != 'GIF':
            np.testing.assert_array_equal(found, np.array(image))

    profile(given(file=mask_files(), edits=edits)(check))()
