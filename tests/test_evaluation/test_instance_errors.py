# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_training import run_tool

from mmpanet.datasets.checks.rle import rle_runs
from mmpanet.evaluation.annotations import Annotations, read_predictions
from mmpanet.evaluation.disagreements import ComparedImage, _draw_outlines, contact_sheet, draw_comparison
from mmpanet.evaluation.instance_errors import ErrorCounts, are_crowded, find_errors, overlaps, without_crowd_regions
from mmpanet.utils.palette import WHITE

HEIGHT, WIDTH = 60, 80


RLE = '{{"size": {size}, "counts": "0"}}'
RESULT = '[{{"score": {score}, "image_id": 1, "category_id": {category}, "segmentation": ' + RLE + '}}]'


def box(x1, y1, x2, y2, category=1, **more):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    mask[y1:y2, x1:x2] = 1
    rle = coco_mask.encode(mask)
    return dict(
        category_id=category,
        mask=dict(rle, counts=rle['counts'].decode()),
        area=int(mask.sum()),
        bbox=[x1, y1, x2 - x1, y2 - y1],
        **more,
    )


LEFT, RIGHT = box(10, 10, 30, 30), box(32, 10, 52, 30)
NOTHING = box(0, 0, 0, 0)
BOTH, LEFT_TOP, LEFT_BOTTOM = box(10, 10, 52, 30), box(10, 10, 30, 19), box(10, 21, 30, 30)


@pytest.mark.parametrize(
    'objects, predictions, kinds, false',
    [
        ([LEFT, RIGHT], [RIGHT, LEFT], ['found', 'found'], ['', '']),
        ([LEFT, RIGHT], [], ['missed', 'missed'], []),
        ([], [LEFT], [], ['background']),
        ([], [], [], []),
        # with an IoU of 0.49 it finds neither object
        ([LEFT, RIGHT], [BOTH], ['merged', 'merged'], ['part or group']),
        ([LEFT, RIGHT], [RIGHT, BOTH], ['merged', 'found'], ['', 'part or group']),
        ([LEFT], [LEFT_TOP, LEFT_BOTTOM], ['split'], ['part or group', 'part or group']),
        ([LEFT], [LEFT_TOP], ['inexact'], ['part or group']),
        ([LEFT], [LEFT, LEFT], ['found'], ['', 'duplicate']),
        ([LEFT], [box(10, 10, 30, 30, category=2)], ['missed'], ['part or group']),
        ([LEFT], [box(28, 28, 40, 40)], ['missed'], ['background']),
        # a prediction that finds another object is no part of this one
        ([LEFT, LEFT_TOP], [LEFT_TOP, LEFT_BOTTOM], ['inexact', 'found'], ['', 'part or group']),
        # empty masks are in nothing, and cover nothing
        ([LEFT], [NOTHING, NOTHING], ['missed'], ['background', 'background']),
        ([LEFT, NOTHING], [BOTH], ['inexact', 'missed'], ['part or group']),
        ([NOTHING], [RIGHT], ['missed'], ['background']),
    ],
)
def test_kinds(objects, predictions, kinds, false):
    errors = find_errors(objects, predictions)
    assert errors.object_kinds == kinds and errors.false_kinds == false
    found = kinds.count('found')
    total = len(objects) + len(predictions)
    assert errors.f1 == pytest.approx(2 * found / total if total else 1)


def random_scene(rng):
    def one():
        x, y = rng.integers(0, WIDTH - 12), rng.integers(0, HEIGHT - 12)
        return box(x, y, x + rng.integers(4, 12), y + rng.integers(4, 12), category=int(rng.integers(1, 3)))

    objects = [one() for _ in range(rng.integers(0, 9))]
    found = []
    for other in objects:  # near them, or anywhere
        x, y, w, h = other['bbox']
        dx, dy = rng.integers(-3, 4, 2)
        x, y = max(0, x + dx), max(0, y + dy)
        found.append(box(x, y, x + w, y + h, category=other['category_id']))
    found += [one() for _ in range(rng.integers(0, 4))]
    rng.shuffle(found)
    return objects, [dict(prediction, score=1 - i / 100) for i, prediction in enumerate(found)]


def coco_file(scenes):
    images = [dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH) for i in range(1, len(scenes) + 1)]
    annotations = [
        dict(
            id=100 * i + j,
            image_id=i,
            category_id=one['category_id'],
            segmentation=one['mask'],
            area=one['area'],
            bbox=[int(v) for v in one['bbox']],
            iscrowd=one.get('iscrowd', 0),
        )
        for i, (objects, _) in enumerate(scenes, start=1)
        for j, one in enumerate(objects, start=1)
    ]
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='a'), dict(id=2, name='b')])


def results(scenes):
    return [
        dict(image_id=i, category_id=one['category_id'], segmentation=one['mask'], score=one['score'])
        for i, (_, found) in enumerate(scenes, start=1)
        for one in found
    ]


def test_found_objects_are_those_of_coco():
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(40)]
    truth = COCO()
    truth.dataset = coco_file(scenes)
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results(scenes)), 'segm')
    evaluation.params.iouThrs, evaluation.params.maxDets = np.array([0.5]), [1000]
    evaluation.evaluate()
    areas = len(evaluation.params.areaRng)
    total = 0
    for number, (objects, found) in enumerate(scenes):
        expected = set()
        for category in range(2):
            image = evaluation.evalImgs[category * areas * len(scenes) + number]
            if image is not None:
                expected |= {int(id_) for id_, match in zip(image['gtIds'], image['gtMatches'][0]) if match}
        kinds = find_errors(objects, found).object_kinds
        assert {100 * (number + 1) + i for i, kind in enumerate(kinds, 1) if kind == 'found'} == expected
        total += len(expected)
    assert total > 50


def test_overlaps_in_plain_numpy():
    rng = np.random.default_rng(0)
    masks = rng.random((5, HEIGHT, WIDTH)) < rng.random((5, 1, 1))
    rles = [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    iou, shared = overlaps(rles[:2], rles[2:])
    for i in range(2):
        for j in range(3):
            assert shared[i, j] == (masks[i] & masks[2 + j]).sum()
            assert iou[i, j] == pytest.approx((masks[i] & masks[2 + j]).sum() / (masks[i] | masks[2 + j]).sum())


def test_crowds_and_crowding():
    crowd = box(40, 0, 80, 60)
    predictions = [box(45, 10, 60, 20), LEFT, box(30, 40, 50, 50)]
    assert without_crowd_regions([LEFT], predictions, [crowd]) == [LEFT]  # half of the last one lies in it
    assert without_crowd_regions([LEFT], predictions, [dict(crowd, category_id=2)]) == predictions
    inside = box(50, 10, 70, 30)  # an object in the crowd, which is found
    assert without_crowd_regions([inside], [inside, box(45, 10, 60, 20)], [crowd]) == [inside]
    assert are_crowded([LEFT, RIGHT, box(29, 29, 40, 40)]) == [True, True, True]
    assert are_crowded([LEFT, RIGHT]) == [False, False] and are_crowded([]) == []


def test_more_than_255_predictions_on_an_image():
    errors = find_errors([LEFT, RIGHT], [LEFT, RIGHT] + [LEFT_TOP] * 300)
    assert errors.object_kinds == ['found', 'found'] and errors.false_kinds == ['', ''] + ['part or group'] * 300


@pytest.fixture
def files(tmp_path):
    """The first model is right on image 1, the second on image 2; neither on 3; a crowd region on 4."""
    false = dict(box(60, 40, 70, 50), score=0.9)
    right = [dict(LEFT, score=0.9), dict(RIGHT, score=0.8)]
    objects = [[LEFT, RIGHT], [LEFT, RIGHT], [LEFT, RIGHT], [dict(box(0, 0, 80, 60), iscrowd=1)]]
    first = [right, [dict(BOTH, score=0.7)], [false], [false]]
    second = [[dict(LEFT, score=0.9), dict(RIGHT, score=0.2)], right, [false], [false]]
    (tmp_path / 'truth.json').write_text(json.dumps(coco_file([(one, []) for one in objects])))
    for name, found in (('first', first), ('second', second)):
        (tmp_path / f'{name}.segm.json').write_text(json.dumps(results(list(zip(objects, found)))))
    (tmp_path / 'images').mkdir()
    for i in range(1, 5):
        cv2.imwrite(str(tmp_path / 'images' / f'{i}.png'), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    return tmp_path


def run(files, *more, truth='truth.json', first='first.segm.json', images='images'):
    run_tool(
        'compare_predictions',
        files / truth,
        files / images,
        files / first,
        files / 'second.segm.json',
        '--names',
        'FPN',
        'PANet',
        '--out-dir',
        files / 'out',
        *more,
    )


def test_tool(files, capsys):
    run(files)
    said = capsys.readouterr().out
    assert '4 images; PANet is ahead on 1, FPN on 1' in said
    lines = (files / 'out' / 'errors.md').read_text().splitlines()
    assert lines[0].startswith('| objects | number | found, FPN | found, PANet | merged, FPN | merged, PANet |')
    assert lines[2].startswith('| all | 6 | 33.3 % | 50.0 % | 33.3 % | 0.0 % |')
    counts = json.loads((files / 'out' / 'errors.json').read_text())
    assert counts['FPN']['false_predictions'] == {'duplicate': 0, 'part or group': 1, 'background': 1}
    assert counts['PANet']['objects']['all']['missed'] == 3
    by_image = json.loads((files / 'out' / 'images.json').read_text())
    assert by_image[0] == dict(file_name='1.png', f1=dict(FPN=1.0, PANet=0.6667)) and by_image[3]['f1']['FPN'] == 1
    assert [path.name for path in (files / 'out' / 'better_FPN').iterdir()] == ['01_1.png']
    panels = cv2.imread(str(files / 'out' / 'better_PANet' / '01_2.png'))
    thirds = np.array_split(panels[30:], 3, axis=1)  # truth, FPN, PANet
    white, blue, vermilion, yellow = (255, 255, 255), (233, 180, 86), (0, 94, 213), (66, 228, 240)
    inside = [part[60:200, 60:340].reshape(-1, 3).tolist() for part in thirds]
    assert list(white) in inside[0] and list(vermilion) in inside[1] and list(yellow) in inside[1]
    assert list(blue) in inside[2] and list(vermilion) not in inside[2]
    assert f'1 pictures in {files}/out/better_PANet, together in {files}/out/better_PANet.jpg' in said
    on_sheet = cv2.imread(str(files / 'out' / 'better_PANet.jpg'))
    assert on_sheet.shape[1] == 1620 and on_sheet[:, 900:].min() > 250  # one picture leaves the second column white


def test_predictions_come_in_the_order_of_their_scores(files):
    found = [dict(LEFT, score=score) for score in (0.5, 0.9, 0.4, 0.7)]
    (files / 'first.segm.json').write_text(json.dumps(results([([], found)])))
    read = read_predictions(files / 'first.segm.json', Annotations(files / 'truth.json'))
    assert [one['score'] for one in read[1]] == [0.9, 0.7, 0.5, 0.4]


def test_categories_that_the_models_do_not_know(files, capsys):
    data = json.loads((files / 'truth.json').read_text())
    data['categories'] = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    other = dict(data['annotations'][0], id=99, category_id=2)
    data['annotations'].append(other)
    (files / 'truth.json').write_text(json.dumps(data))
    with pytest.raises(SystemExit, match="no file has a detection of 'dog', which has 1 objects: .* --classes"):
        run(files)
    run(files, '--classes', 'cat')
    lines = (files / 'out' / 'errors.md').read_text().splitlines()
    assert lines[2].startswith('| all | 6 | 33.3 % | 50.0 % |')


def test_ids_of_objects_are_unique(files):
    data = json.loads((files / 'truth.json').read_text())
    data['annotations'][3]['id'] = data['annotations'][1]['id']
    (files / 'truth.json').write_text(json.dumps(data))
    with pytest.raises(SystemExit, match=r'annotation id \d+ is there several times'):
        run(files)


def test_objects_smaller_than_a_pixel_of_the_picture_are_drawn():
    mask = np.zeros((4000, 400), np.uint8, order='F')
    mask[2003:2006, 203:206] = 1
    panel = _draw_outlines(np.full((4000, 400, 3), 90, np.uint8), 0.1, [(coco_mask.encode(mask), WHITE)])
    assert (panel == 255).all(axis=2).any()


def test_small_is_below_an_area():
    counts = ErrorCounts()
    objects = [box(0, 0, 32, 31), box(0, 0, 32, 32)]
    counts.add(objects, find_errors(objects, []))
    assert (counts.objects['small']['missed'], counts.objects['larger']['missed']) == (1, 1)


def test_sheet():
    """Each picture stands under the shortest column, whole and in its proportions."""
    tall, wide = np.full((804, 402, 3), 60, np.uint8), np.full((402, 1608, 3), 120, np.uint8)
    drawn = contact_sheet([tall, wide, wide])
    assert drawn.shape == (1614, 1620, 3)
    assert (drawn[:1608, :804] == 60).all() and (drawn[:, 804:810] == 255).all()
    assert (drawn[:201, 810:1614] == 120).all() and (drawn[201:207, 810:] == 255).all()
    assert (drawn[207:408, 810:1614] == 120).all() and (drawn[414:, 810:] == 255).all()


def test_all_scores(files, capsys):
    run(files, '--score-thr', 0, '--num-pictures', 1)
    assert 'PANet is ahead on 1, FPN on 0' in capsys.readouterr().out


@pytest.mark.parametrize(
    'file, content, message',
    [
        ('truth.json', 'x', 'truth.json: no annotations in COCO format'),
        ('truth.json', '{"images": 3}', 'truth.json: no annotations in COCO format'),
        ('first.segm.json', '{', 'first.segm.json: no list of results'),
        (
            'first.segm.json',
            '[{"score": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]',
            "no 'segmentation'; it must be the .segm.json",
        ),
        (
            'first.segm.json',
            '[{"score": 1, "image_id": 99, "category_id": 1, "segmentation": {}}]',
            'image_id=99 is not in .*truth.json',
        ),
        ('first.segm.json', RESULT.format(score=1, category=7, size=[60, 80]), 'category_id=7 is not in .*truth.json'),
        ('first.segm.json', RESULT.format(score='NaN', category=1, size=[60, 80]), 'score=nan must be a finite number'),
        ('first.segm.json', RESULT.format(score='"high"', category=1, size=[60, 80]), "score='high' must be a finite"),
        ('first.segm.json', RESULT.format(score=1, category=1, size=[61, 80]), r'the size \[61, 80\], and the image'),
        (
            'first.segm.json',
            '[{"score": 1, "image_id": "1", "category_id": 1, "segmentation": {"size": [60, 80], "counts": [4800]}}]',
            "image_id='1' is not in .*truth.json",
        ),
        (
            'first.segm.json',
            '[{"score": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [60, 80], "counts": [10, 20]}}]',
            "image_id=1: 'segmentation' has counts that say 30 pixels, it takes 4800",
        ),
        ('images/1.png', 'x', '1.png: not readable as an image'),
        ('images/1.png', '', '1.png: not readable as an image'),
    ],
)
def test_what_is_refused(files, file, content, message):
    (files / file).write_text(content)
    with pytest.raises(SystemExit, match=message):
        run(files)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda data: data['annotations'][0].update(segmentation=[[1, 2]]),
            r"annotation \d+: 'segmentation' \[0\] has 2",
        ),
        (lambda data: data['annotations'][0].update(segmentation=[[]]), r"tion \d+: 'segmentation' \[0\] has 0"),
        (
            lambda data: data['annotations'][0].update(segmentation=dict(size=[80, 60], counts=[4800])),
            r"annotation \d+: 'segmentation' has size \[80, 60\], it takes that of its image",
        ),
        (lambda data: data['images'][0].pop('width'), "has no 'width', which the mask of annotation"),
        (lambda data: data['images'][0].pop('file_name'), "image 1 has no 'file_name'"),
        (lambda data: data['images'].append(data['images'][0]), 'image id 1 is there several times'),
        (lambda data: data['categories'].append(data['categories'][0]), r'category id \d+ is there several times'),
        (lambda data: data['annotations'][0].update(id='a17'), "annotation a17: id='a17' must be a whole number"),
        (lambda data: data['annotations'][0].update(area=None), 'area=None must be a number of 0 or more'),
        (lambda data: data['annotations'][0].update(iscrowd='no'), "iscrowd='no' must be 0 or 1"),
        (lambda data: data['annotations'][0].update(bbox=[0, 0, 1, None]), 'bbox=.* must be x, y, width, height'),
    ],
)
def test_annotations_that_cannot_be_compared(files, change, message):
    data = json.loads((files / 'truth.json').read_text())
    change(data)
    (files / 'truth.json').write_text(json.dumps(data))
    with pytest.raises(SystemExit, match=message):
        run(files)


def test_counts_that_are_not_compressed_and_flags_that_are_null(files):
    run(files)
    expected = (files / 'out' / 'errors.json').read_text()
    data = json.loads((files / 'truth.json').read_text())
    for one in data['annotations']:
        one['iscrowd'] = one['iscrowd'] or None
    (files / 'truth.json').write_text(json.dumps(data))
    found = json.loads((files / 'first.segm.json').read_text())
    for one in found:
        one['segmentation']['counts'] = rle_runs(one['segmentation']['counts']).tolist()
    (files / 'first.segm.json').write_text(json.dumps(found))
    run(files)
    assert (files / 'out' / 'errors.json').read_text() == expected


def test_a_missing_image_leaves_an_earlier_comparison_whole(files):
    run(files)
    before = {path: path.read_bytes() for path in (files / 'out').rglob('*') if path.is_file()}
    (files / 'first.segm.json').write_text('[]')
    (files / 'images' / '1.png').unlink()
    with pytest.raises(SystemExit, match='1.png: no such image'):
        run(files)
    assert before == {path: path.read_bytes() for path in (files / 'out').rglob('*') if path.is_file()}


def test_an_image_of_one_column_is_drawn():
    image = np.zeros((2000, 1, 3), np.uint8)
    picture = draw_comparison(image, ComparedImage(1, 'a.png', [], [[], []], [find_errors([], [])] * 2), ['a', 'b'])
    assert contact_sheet([picture]).shape[1] == 1620


def test_files_that_are_not_there(files):
    for arguments in (dict(truth='none.json'), dict(first='none.json')):
        with pytest.raises(SystemExit, match='none.json: no '):
            run(files, **arguments)
    assert not (files / 'out').exists()
    assert len(Annotations(files / 'truth.json').objects(1)) == 2
