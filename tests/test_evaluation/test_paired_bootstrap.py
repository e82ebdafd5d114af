# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny_training import run_tool

from mmpanet.evaluation.paired_bootstrap import paired_bootstrap
from mmpanet.utils.errors import DataError

# The statistics of COCOeval.summarize() in its order.
STATS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
NUM_IMAGES = 12


@pytest.fixture(scope='module')
def scenes():
    """Objects of two classes and of all sizes, and boxes of a coarse and of a finer model near them."""
    rng = np.random.default_rng(0)
    objects, coarse, fine = [], [], []
    for image_id in range(1, NUM_IMAGES + 1):
        for _ in range(rng.integers(1, 7)):
            x, y, *size = rng.uniform(8, 100, 4) * [2, 2, 1.5, 1.5]
            box, category = np.array([x, y, *size]), int(rng.integers(1, 3))
            objects.append(dict(image_id=image_id, category_id=category, bbox=box.tolist(), iscrowd=0))
            for found, noise in ((coarse, 0.25), (fine, 0.12)):
                moved = box + rng.normal(0, noise, 4) * [size[0], size[1], size[0], size[1]]
                moved[2:] = moved[2:].clip(2)
                found.append(dict(image_id=image_id, category_id=category, bbox=moved.tolist(), score=rng.random()))
        for found in (coarse, fine):
            false = dict(image_id=image_id, category_id=1, bbox=rng.uniform(5, 80, 4).tolist(), score=rng.random())
            found.append(false)
    objects[3]['iscrowd'] = 1
    for number, one in enumerate(objects, start=1):
        one.update(id=number, area=one['bbox'][2] * one['bbox'][3])
    return objects, coarse, fine


def dataset(objects, num_images=NUM_IMAGES):
    images = [dict(id=i, file_name=f'{i}.png', height=300, width=300) for i in range(1, num_images + 1)]
    return dict(images=images, annotations=objects, categories=[dict(id=1, name='a'), dict(id=2, name='b')])


@pytest.fixture
def files(scenes, tmp_path):
    objects, coarse, fine = scenes
    for name, content in (('truth', dataset(objects)), ('coarse', coarse), ('fine', fine)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    return tmp_path / 'truth.json', [tmp_path / 'coarse.json'], [tmp_path / 'fine.json']


def coco_stats(scenes, chosen):
    """The AP of both models by pycocotools on a dataset that holds every chosen image, in copies of its own."""
    objects, *models = (
        [dict(one, image_id=i) for i, image_id in enumerate(chosen, 1) for one in part if one['image_id'] == image_id]
        for part in scenes
    )
    for number, one in enumerate(objects, start=1):
        one['id'] = number
    truth = COCO()
    truth.dataset = dataset(objects, len(chosen))
    truth.createIndex()
    stats = []
    for found in models:
        evaluation = COCOeval(truth, truth.loadRes([dict(one) for one in found]), 'bbox')
        evaluation.params.maxDets = [100, 300, 1000]  # as mmdet's CocoMetric
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        stats.append(evaluation.stats[: len(STATS)])
    return np.array(stats)


def test_images_with_more_than_a_hundred_detections(scenes, tmp_path):
    """AP counts a hundred detections per image, and the other metrics a thousand, as in mmdet's tables."""
    objects, coarse, fine = scenes
    rng = np.random.default_rng(1)
    false = [
        dict(image_id=1, category_id=1, bbox=rng.uniform(5, 80, 4).tolist(), score=2 + rng.random()) for _ in range(98)
    ]
    crowded = (objects, coarse + false, fine + false)
    for name, content in zip(('truth', 'coarse', 'fine'), (dataset(objects), *crowded[1:])):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    files = tmp_path / 'truth.json', [tmp_path / 'coarse.json'], [tmp_path / 'fine.json']
    results = paired_bootstrap(*files, resamples=2)
    whole = coco_stats(crowded, range(1, NUM_IMAGES + 1))
    np.testing.assert_allclose([[one.first, one.second] for one in results], whole.T, atol=1e-12)


def test_against_a_plain_loop_over_pycocotools(scenes, files):
    results = paired_bootstrap(*files, resamples=25, seed=3)
    whole = coco_stats(scenes, range(1, NUM_IMAGES + 1))
    assert [one.metric for one in results] == list(STATS)
    np.testing.assert_allclose([[one.first, one.second] for one in results], whole.T, atol=1e-12)
    rng, differences = np.random.default_rng(3), []
    for _ in range(25):
        first, second = coco_stats(scenes, 1 + rng.integers(NUM_IMAGES, size=NUM_IMAGES))
        differences.append(np.where(first < 0, np.nan, second - first))
    low, high = np.nanquantile(differences, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([one.low for one in results], low, atol=1e-12)
    np.testing.assert_allclose([one.high for one in results], high, atol=1e-12)
    assert results[0].difference > 0.1 and results[0].low > 0 and results[0].p_value == 2 / (len(differences) + 1)


def test_a_model_that_finds_nothing(files):
    truth, coarse, _ = files
    nothing = truth.parent / 'nothing.json'
    nothing.write_text('[]')
    first, second = (paired_bootstrap(truth, *pair, resamples=9) for pair in ((coarse, [nothing]), ([nothing], coarse)))
    assert [one.second for one in first] == [0] * len(first) and first[0].first > 0.01
    assert [one.difference for one in first] == [-one.difference for one in second]
    with pytest.raises(DataError, match='no detections'):
        paired_bootstrap(truth, [nothing], [nothing])


def test_few_draws(scenes, tmp_path):
    """A metric without objects in any draw is left out, and a few draws do not give a p of zero."""
    objects, coarse, fine = scenes
    only = [one for one in objects if one['image_id'] == 1 and not one['iscrowd']]
    files = []
    for name, content in (('truth', dataset(only)), ('coarse', coarse), ('fine', fine)):
        files.append(tmp_path / f'{name}.json')
        files[-1].write_text(json.dumps(content))
    truth, first, second = files
    found = [paired_bootstrap(truth, [first], [second], resamples=1, seed=seed) for seed in range(6)]
    assert [] in found and any(found)
    assert all(one.p_value == 1 for results in found for one in results)


def test_a_model_does_not_differ_from_itself(files):
    truth, coarse, _ = files
    for one in paired_bootstrap(truth, coarse, coarse, resamples=5):
        assert (one.difference, one.low, one.high, one.p_value) == (0, 0, 0, 1)


def test_seeds_are_drawn_too(scenes, files):
    """Against a plain loop: the mean AP of the drawn seeds, on the drawn images."""
    truth, coarse, fine = files
    results = paired_bootstrap(truth, [*coarse, *fine], [*fine, *fine, *coarse], resamples=12, seed=5)
    whole = coco_stats(scenes, range(1, NUM_IMAGES + 1))
    expected = np.array([whole.mean(0), (2 * whole[1] + whole[0]) / 3])
    np.testing.assert_allclose([[one.first, one.second] for one in results], expected.T, atol=1e-12)
    rng, differences = np.random.default_rng(5), []
    for _ in range(12):
        coarse_ap, fine_ap = coco_stats(scenes, 1 + rng.integers(NUM_IMAGES, size=NUM_IMAGES))
        before = np.mean([[coarse_ap, fine_ap][i] for i in rng.integers(2, size=2)], axis=0)
        after = np.mean([[fine_ap, fine_ap, coarse_ap][i] for i in rng.integers(3, size=3)], axis=0)
        differences.append(np.where(coarse_ap < 0, np.nan, after - before))
    low, high = np.nanquantile(differences, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([one.low for one in results], low, atol=1e-12)
    np.testing.assert_allclose([one.high for one in results], high, atol=1e-12)


def test_tool_with_masks(files, tmp_path, capsys):
    """Against pycocotools. The masks are halves of the boxes, so that mask AP is another number than box AP."""
    truth, first, second = files
    for file in (truth, *first, *second):
        content = json.loads(file.read_text())
        for one in content['annotations'] if file == truth else content:
            x, y, w, h = one['bbox']
            rle = coco_mask.merge(coco_mask.frPyObjects([[x, y, x + w, y, x, y + h]], 300, 300))
            one['segmentation'] = dict(rle, counts=rle['counts'].decode())
        file.write_text(json.dumps(content))
    coco, results = COCO(str(truth)), json.loads(first[0].read_text())
    for one in results:
        del one['bbox']  # pycocotools would match boxes
    evaluation = COCOeval(coco, coco.loadRes(results), 'segm')
    evaluation.params.maxDets = [100, 300, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    out = tmp_path / 'out' / 'bootstrap.json'
    words = ['paired_bootstrap', truth, *first, '--against', *second]
    run_tool(*words, '--names', 'FPN', 'PANet', '--resamples', 20, '--out', out)
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if 'FPN' in line and 'PANet' in line)
    assert lines[start + 2].split()[0] == 'AP' and '+' in lines[start + 2]
    [found, *_] = json.loads(out.read_text())
    assert found['first'] == pytest.approx(evaluation.stats[0], abs=1e-12)
    assert found['difference'] == pytest.approx(found['second'] - found['first'])


@pytest.mark.parametrize(
    'content, message',
    [
        ('x', "second.json: no list of results in COCO's format"),
        ('{}', "second.json: no list of results in COCO's format"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]', "KeyError: 'score'"),
        (
            '[{"image_id": 99, "category_id": 1, "score": 1, "bbox": [0, 0, 1, 1]}]',
            'image_id=99 is not in .*truth.json',
        ),
        (
            '[{"image_id": 1, "category_id": 1, "score": 1, "segmentation": {"size": [300, 300], "counts": [90000]}}]',
            'both hold',
        ),
        ('[{"image_id": 1, "category_id": 1, "score": 1, "segmentation": {}}]', "with 'size' and 'counts'"),
        ('[{"image_id": 1, "category_id": 7, "score": 1, "bbox": [0, 0, 1, 1]}]', 'category_id=7 is not in'),
        ('[{"image_id": 1, "category_id": 1, "score": NaN, "bbox": [0, 0, 1, 1]}]', 'score=nan must be a finite'),
        ('[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2]}]', 'a bbox must be x, y, width, height'),
    ],
)
def test_what_is_refused(files, tmp_path, content, message):
    (tmp_path / 'second.json').write_text(content)
    with pytest.raises(SystemExit, match=message):
        run_tool('paired_bootstrap', files[0], *files[1], '--against', tmp_path / 'second.json')


def test_a_category_that_the_models_do_not_know(scenes, files, tmp_path):
    """It counts in neither of two wrong ways: AP is that of the classes alone, or there is an error."""
    objects, coarse, fine = scenes
    known = [[one for one in found if one['category_id'] == 1] for found in (coarse, fine)]
    for name, found in zip(('coarse', 'fine'), known):
        (tmp_path / f'{name}.json').write_text(json.dumps(found))
    truth, first, second = files
    with pytest.raises(SystemExit, match=r"no file has a detection of 'b', which has \d+ objects: .* --classes"):
        run_tool('paired_bootstrap', truth, *first, '--against', *second)
    with pytest.raises(SystemExit, match="no category is named 'c'; there are a, b"):
        run_tool('paired_bootstrap', truth, *first, '--against', *second, '--classes', 'c')
    [found, *_] = paired_bootstrap(truth, first, second, resamples=2, classes=['a'])
    alone = [one for one in objects if one['category_id'] == 1]
    expected = coco_stats((alone, *known), range(1, NUM_IMAGES + 1))
    assert (found.first, found.second) == pytest.approx([stats[STATS.index('mAP')] for stats in expected])


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda one: one.pop('area'), "annotation 1 has no 'area'"),
        (lambda one: one.update(bbox=[1, 2]), r'annotation 1: bbox=\[1, 2\] must be x, y, width, height'),
        (lambda one: one.update(id=0), 'an annotation has the id 0, which COCO evaluates as never found'),
        (lambda one: one.update(id=2), 'annotation id 2 is there several times'),
    ],
)
def test_annotations_that_cannot_be_evaluated(files, change, message):
    content = json.loads(files[0].read_text())
    change(content['annotations'][0])
    files[0].write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=message):
        run_tool('paired_bootstrap', files[0], *files[1], '--against', *files[2])


def test_annotations_without_names_of_categories(files):
    expected = paired_bootstrap(*files, resamples=2)
    content = json.loads(files[0].read_text())
    del content['categories']
    files[0].write_text(json.dumps(content))
    assert paired_bootstrap(*files, resamples=2) == expected
    assert paired_bootstrap(*files, resamples=2, classes=['1', '2']) == expected  # their ids are their names


def test_annotations_without_crowd_flags(files):
    content = json.loads(files[0].read_text())
    for one in content['annotations']:
        one['iscrowd'] = 0
    files[0].write_text(json.dumps(content))
    expected = paired_bootstrap(*files, resamples=2)
    for one in content['annotations']:
        del one['iscrowd']
    files[0].write_text(json.dumps(content))
    assert paired_bootstrap(*files, resamples=2) == expected


def test_ids_of_annotations_may_be_negative(files):
    """As in files that number their objects so that they meet no others. pycocotools takes every id but 0."""
    expected = paired_bootstrap(*files, resamples=2)
    content = json.loads(files[0].read_text())
    for one in content['annotations']:
        one['id'] = -one['id']
    files[0].write_text(json.dumps(content))
    assert paired_bootstrap(*files, resamples=2) == expected


def test_categories_as_files_from_elsewhere_have_them(files):
    """Crowd regions alone are no objects, and two categories may have one name or none, and then its id is its name."""
    truth, first, second = files
    content = json.loads(truth.read_text())
    expected = paired_bootstrap(truth, first, second, resamples=2)
    region = dict(content['annotations'][0], id=999, category_id=3, iscrowd=1)
    content['annotations'].append(region)
    content['categories'] = [dict(id=1), dict(id=2, name='b'), dict(id=3, name='b')]
    truth.write_text(json.dumps(content))
    assert paired_bootstrap(truth, first, second, resamples=2) == expected
    assert paired_bootstrap(truth, first, second, resamples=2, classes=['1', 'b']) == expected
    content['categories'].append(dict(id=4, name='d'))
    truth.write_text(json.dumps(content))
    with pytest.raises(DataError, match='there is no object of d'):
        paired_bootstrap(truth, first, second, classes=['d'])
