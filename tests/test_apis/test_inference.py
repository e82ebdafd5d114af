# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Images, folders and videos through tools/misc/image_demo.py."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from pycocotools import mask as coco_mask
from tiny_training import make_data, run_tool, write_config

from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmpanet.apis import find_inputs
from mmpanet.utils.errors import DataError
from mmpanet.visualization import UnlabelledVisualizer

EVERYTHING = "model['test_cfg'] = dict(rcnn=dict(score_thr=0., max_per_img=20))\n"


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Config, checkpoint of random weights, and images."""
    folder = tmp_path_factory.mktemp('demo')
    data = make_data(folder / 'shapes', num_train=3, num_val=2)
    config = write_config(folder / 'tiny.py', data, EVERYTHING)
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta=dict()), folder / 'weights.pth')
    return folder


@pytest.fixture
def demo(folder, tmp_path, capsys):
    def run(*words):
        run_tool(
            'image_demo',
            folder / 'tiny.py',
            folder / 'weights.pth',
            *words,
            '--out-dir',
            tmp_path / 'out',
            '--device',
            'cpu',
        )
        return tmp_path / 'out', capsys.readouterr().out

    return run


def images(folder, number=3):
    return sorted((folder / 'shapes' / 'images').iterdir())[:number]


def test_pictures_and_predictions_are_those_of_mmdet(folder, demo):
    out, said = demo(*images(folder), '--score-thr', 0.1)
    model = init_detector(str(folder / 'tiny.py'), str(folder / 'weights.pth'), device='cpu')
    for path in images(folder):
        expected = inference_detector(model, str(path)).pred_instances
        found = json.loads((out / 'preds' / f'{path.stem}.json').read_text())
        assert len(found['scores']) == len(expected) > 0
        np.testing.assert_allclose(found['bboxes'], expected.bboxes.numpy(), atol=1e-4)
        np.testing.assert_allclose(found['scores'], expected.scores.numpy(), atol=1e-6)
        masks = np.stack([coco_mask.decode(mask) for mask in found['masks']]).astype(bool)
        assert (masks == expected.masks.numpy()).all()
        picture = cv2.imread(str(out / 'vis' / path.name))
        assert picture.shape[:2] == cv2.imread(str(path)).shape[:2]
        assert f'{path}: {int((expected.scores >= 0.1).sum())} objects above 0.1' in said
    assert not list(out.rglob('.*'))


def test_folder_and_switches(folder, demo):
    out, _ = demo(folder / 'shapes' / 'images', '--no-pictures')
    assert len(list((out / 'preds').iterdir())) == len(images(folder, None)) and not (out / 'vis').exists()


def test_without_labels_fewer_pixels_are_painted(folder, tmp_path):
    pictures = []
    for name, words in [('with', []), ('without', ['--no-labels'])]:
        run_tool(
            'image_demo',
            folder / 'tiny.py',
            folder / 'weights.pth',
            images(folder)[0],
            '--no-predictions',
            '--device',
            'cpu',
            '--score-thr',
            0,
            '--out-dir',
            tmp_path / name,
            *words,
        )
        assert not (tmp_path / name / 'preds').exists()
        pictures.append(cv2.imread(str(tmp_path / name / 'vis' / images(folder)[0].name)))
    assert (pictures[0] != pictures[1]).any(-1).sum() > 50
    assert UnlabelledVisualizer().draw_texts('text', None) is not None


@pytest.mark.parametrize('batch_size', [1, 2])
def test_video(folder, demo, tmp_path, batch_size):
    frames = [cv2.imread(str(path)) for path in images(folder)]
    writer = cv2.VideoWriter(str(tmp_path / 'clip.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 7, (64, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    out, said = demo(tmp_path / 'clip.avi', '--batch-size', batch_size)
    assert 'clip.avi' in said
    found = json.loads((out / 'preds' / 'clip.json').read_text())
    assert len(found) == 3 and all(frame['scores'] and len(frame['masks']) == len(frame['bboxes']) for frame in found)
    video = cv2.VideoCapture(str(out / 'vis' / 'clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == 7
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64, 64)
    assert not list(out.rglob('.*'))


def test_what_cannot_be_read_is_named_and_the_rest_is_done(folder, demo, tmp_path):
    inside = tmp_path / 'mixed'
    inside.mkdir()
    good = images(folder)[0]
    (inside / 'a.png').write_bytes(b'no picture')
    (inside / 'b.png').write_bytes(b'')
    (inside / 'c.png').write_bytes(good.read_bytes())
    (inside / 'd.mp4').write_bytes(b'no video')
    with pytest.raises(SystemExit) as error:
        demo(inside)
    lines = str(error.value).splitlines()
    assert [Path(line.split(': ')[1]).name for line in lines] == ['a.png', 'b.png', 'd.mp4']
    assert all('not readable as an image' in line for line in lines[:2]) and 'decoded as a video' in lines[2]
    assert [path.name for path in (tmp_path / 'out' / 'preds').iterdir()] == ['c.json']
    assert [path.name for path in (tmp_path / 'out' / 'vis').iterdir()] == ['c.png']


def test_inputs_that_are_refused(tmp_path, folder):
    (tmp_path / 'notes.txt').write_text('x')
    (tmp_path / 'empty').mkdir()
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / f'same.{dict(a="png", b="jpg")[name]}').write_bytes(b'x')
    for words, message in [
        (['none.png'], 'none.png: no such file'),
        (['notes.txt'], 'notes.txt: is no image or video'),
        (['empty'], 'empty: no image or video in this folder'),
        (['a', 'b'], 'same.json'),
    ]:
        with pytest.raises(DataError, match=message):
            find_inputs([tmp_path / word for word in words])


def test_checkpoints_that_are_refused(folder, tmp_path):
    weights = torch.load(folder / 'weights.pth', weights_only=True)
    weights['state_dict'].pop('neck.downsample_convs.0.conv.weight')
    torch.save(weights, tmp_path / 'lacking.pth')
    (tmp_path / 'cut.pth').write_bytes((folder / 'weights.pth').read_bytes()[:1000])
    for name, message in [
        ('lacking.pth', 'of another model: 1 of the .* it has no neck.downsample_convs.0'),
        ('cut.pth', 'cut.pth: is cut off or damaged'),
        ('none.pth', 'none.pth: cannot be read: No such file'),
    ]:
        with pytest.raises(SystemExit, match=message):
            run_tool(
                'image_demo',
                folder / 'tiny.py',
                tmp_path / name,
                images(folder)[0],
                '--out-dir',
                tmp_path / 'out',
                '--device',
                'cpu',
            )
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'words, message',
    [
        (['--score-thr', '2'], 'not a number from 0 to 1'),
        (['--no-pictures', '--no-predictions'], 'leave nothing to write'),
    ],
)
def test_command_lines_that_are_refused(folder, words, message, capsys):
    with pytest.raises(SystemExit):
        run_tool('image_demo', folder / 'tiny.py', folder / 'weights.pth', images(folder)[0], *words)
    assert message in capsys.readouterr().err
