# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Images, folders and videos through tools/misc/image_demo.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from PIL import Image
from pycocotools import mask as coco_mask
from repository import ROOT
from tiny_training import make_data, run_tool, write_config

from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmpanet.apis import find_inputs, load_inferencer, video
from mmpanet.apis.prediction import predict
from mmpanet.apis.video import VideoWriter
from mmpanet.deploy import export
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError, DataError
from mmpanet.visualization import UnlabeledVisualizer

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


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is such a device')
def test_a_device_that_is_not_here(folder, tmp_path):
    inputs = (folder / 'tiny.py', folder / 'weights.pth', folder / 'shapes' / 'images')
    words = (*inputs, '--out-dir', tmp_path, '--device', 'cuda:0')
    with pytest.raises(SystemExit, match='--device cuda:0: torch finds no such device here'):
        run_tool('image_demo', *words)
    for tool in ('benchmark', 'benchmark_pooling'):
        with pytest.raises(SystemExit, match=f'{tool}.py: --device cuda:0: torch finds no such device here'):
            run_tool(tool, '--device', 'cuda:0', '--out', tmp_path / tool)


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / 'notes').write_text('a file')
    words = (folder / 'tiny.py', folder / 'weights.pth', folder / 'shapes/images', '--out-dir', tmp_path / 'notes')
    for tool in ('image_demo', 'level_distribution'):
        with pytest.raises(SystemExit, match=f'{tool}.py: .*notes'):
            run_tool(tool, *words, '--device', 'cpu')


def test_a_panoptic_model_is_refused(tmp_path):
    """Its segments are no objects."""
    for test_cfg in (None, dict(panoptic_on=True), dict(instance_on=True)):  # of PanopticFPN, and of MaskFormer
        model = SimpleNamespace(panoptic_fusion_head=SimpleNamespace(test_cfg=test_cfg))
        with pytest.raises(ConfigError, match='a SimpleNamespace predicts panoptic segments'):
            predict(SimpleNamespace(model=model), tmp_path / 'a.png', tmp_path / 'out')
        assert not (tmp_path / 'out').exists()
    model.panoptic_fusion_head.test_cfg = dict(panoptic_on=False, instance_on=True)
    with pytest.raises(TypeError, match='not callable'):  # it goes on to call the inferencer
        predict(SimpleNamespace(model=model), tmp_path / 'a.gif', tmp_path / 'out')


def test_more_classes_than_the_palette_of_coco(folder, tmp_path):
    """The colors of the first 80 classes of somebody else's dataset would not be enough to draw."""
    names = tuple(f'class {i}' for i in range(100))
    cfg = load_config(folder / 'tiny.py')
    cfg.test_dataloader.dataset.metainfo = dict(classes=names)
    cfg.model.roi_head.bbox_head.num_classes = cfg.model.roi_head.mask_head.num_classes = 100
    torch.manual_seed(0)
    weights = MODELS.build(cfg.model).state_dict()
    weights['roi_head.bbox_head.fc_cls.bias'][90] = 5
    torch.save(dict(state_dict=weights), tmp_path / 'many.pth')
    inferencer = load_inferencer(cfg, str(tmp_path / 'many.pth'), 'cpu')
    [image, *_] = sorted((folder / 'shapes' / 'images').iterdir())
    found = predict(inferencer, image, tmp_path / 'out', score_thr=0.0)
    labels = json.loads(found.predictions.read_text())['labels']
    assert max(labels) >= 80 and found.picture.is_file()


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


def test_files_of_a_folder_that_are_not_taken_are_counted(folder, tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'a.png').write_bytes(images(folder)[0].read_bytes())
    for name in ('b.gif', 'c.heic', '.DS_Store'):
        (tmp_path / 'in' / name).write_bytes(b'x')
    words = (folder / 'tiny.py', folder / 'weights.pth', tmp_path / 'in', '--out-dir', tmp_path, '--device', 'cpu')
    run_tool('image_demo', *words, '--no-pictures')
    assert f'note: 2 files in {tmp_path / "in"} are not taken, the first is b.gif' in capsys.readouterr().err


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
    image = cv2.imread(str(images(folder)[0])).astype(int)
    labeled, unlabeled = ((np.abs(picture - image) > 40).any(-1).sum() for picture in pictures)  # old matplotlib blurs
    assert labeled > unlabeled + 50 and unlabeled > 0
    assert UnlabeledVisualizer().draw_texts('text', None) is not None


def write_clip(folder, path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 7, (64, 64))
    for image in images(folder):
        writer.write(cv2.imread(str(image)))
    writer.release()


@pytest.mark.parametrize('batch_size', [1, 2])
def test_video(folder, demo, tmp_path, batch_size):
    write_clip(folder, tmp_path / 'clip.avi')
    out, said = demo(tmp_path / 'clip.avi', '--batch-size', batch_size)
    assert 'clip.avi' in said
    found = json.loads((out / 'preds' / 'clip.json').read_text())
    model = init_detector(str(folder / 'tiny.py'), str(folder / 'weights.pth'), device='cpu')
    frames = list(mmcv.VideoReader(str(tmp_path / 'clip.avi')))
    assert len(found) == len(frames) == 3
    for one, frame in zip(found, frames):
        expected = inference_detector(model, frame).pred_instances
        assert len(one['masks']) == len(one['scores']) == len(expected) > 0
        np.testing.assert_allclose(one['bboxes'], expected.bboxes.numpy(), atol=1e-4)
    video = cv2.VideoCapture(str(out / 'vis' / 'clip.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and video.get(cv2.CAP_PROP_FPS) == 7
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (64, 64)
    assert not list(out.rglob('.*'))


def test_frames_that_are_missing_are_counted(folder, tmp_path, capsys):
    write_clip(folder, tmp_path / 'clip.avi')
    content = bytearray((tmp_path / 'clip.avi').read_bytes())
    third = [found.end() for found in re.finditer(b'00dc', content)][3] + 4  # the first one is in the header
    size = int.from_bytes(content[third - 4 : third], 'little')
    content[third : third + size] = bytes(size)
    (tmp_path / 'damaged.avi').write_bytes(content)
    out = tmp_path / 'out'
    run_tool('image_demo', folder / 'tiny.py', folder / 'weights.pth', tmp_path / 'damaged.avi', '--out-dir', out)
    assert len(json.loads((out / 'preds' / 'damaged.json').read_text())) == 2
    assert 'damaged.avi: its header names 1 more frames, which cannot be decoded' in capsys.readouterr().err


def test_a_video_that_is_not_written_whole_is_no_result(folder, demo, tmp_path, monkeypatch):
    """OpenCV says nothing if the disk is full."""
    write_clip(folder, tmp_path / 'clip.avi')
    write = VideoWriter.add
    monkeypatch.setattr(VideoWriter, 'add', lambda writer, pictures: write(writer, [*pictures, pictures[0][:-2]]))
    with pytest.raises(SystemExit, match='clip.mp4: 3 of 6 frames were written'):
        demo(tmp_path / 'clip.avi')
    assert not list((tmp_path / 'out').rglob('*.mp4'))


def test_pictures_do_not_take_the_place_of_their_images(folder, demo, tmp_path):
    image = tmp_path / 'out' / 'vis' / 'a.png'
    image.parent.mkdir(parents=True)
    image.write_bytes(images(folder)[0].read_bytes())
    with pytest.raises(SystemExit, match='a.png: would be replaced by its own picture'):
        demo(image.parent)
    assert image.read_bytes() == images(folder)[0].read_bytes()


def test_a_video_that_cannot_be_written_is_named(folder, demo, tmp_path, monkeypatch):
    """OpenCV says nothing where it has no encoder."""
    write_clip(folder, tmp_path / 'clip.avi')
    monkeypatch.setattr(cv2.VideoWriter, 'fourcc', lambda *letters: cv2.VideoWriter_fourcc(*'none'))
    with pytest.raises(SystemExit, match='clip.mp4: OpenCV cannot write 64 x 64 pixels at .* as mp4 here'):
        demo(tmp_path / 'clip.avi')
    assert not list((tmp_path / 'out').rglob('*.mp4'))


def test_a_gray_map_becomes_a_picture_in_colors(folder, demo, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.pgm'), cv2.imread(str(images(folder)[0]), cv2.IMREAD_GRAYSCALE))
    out, _ = demo(tmp_path / 'a.pgm')
    assert [path.name for path in (out / 'vis').iterdir()] == ['a.png']
    assert cv2.imread(str(out / 'vis/a.png')).shape == (64, 64, 3)


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


def test_colors_of_a_picture_are_those_of_the_image(folder, demo):
    out, _ = demo(images(folder)[0], '--score-thr', 1)  # nothing is drawn
    drawn, image = (cv2.imread(str(path)) for path in (out / 'vis' / images(folder)[0].name, images(folder)[0]))
    colors = image.mean((0, 1))
    assert np.ptp(colors) > 5  # the channels are told apart
    assert np.abs(drawn.mean((0, 1)) - colors).max() < 2  # old matplotlib blurs


GRAY = """
_base_ = './tiny.py'
load = dict(type='LoadImageFromFile', color_type='grayscale')
pack = dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
test_dataloader = dict(dataset=dict(pipeline=[load, dict(type='Resize', scale=(64, 64), keep_ratio=True), pack]))
model = dict(
    data_preprocessor=dict(mean=[114.], std=[58.], bgr_to_rgb=False), backbone=dict(in_channels=1),
    test_cfg=dict(rcnn=dict(score_thr=0., max_per_img=20)))
"""
OWN_LOADER = """
_base_ = './tiny.py'
custom_imports = dict(imports=['loader_of_mine'], allow_failed_imports=False)
pack = dict(type='PackDetInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor'))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='LoadArray'), dict(type='Resize', scale=(64, 64), keep_ratio=True), pack]))
model = dict(test_cfg=dict(rcnn=dict(score_thr=0., max_per_img=20)))
"""
LOADER = """
import cv2
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module(force=True)
class LoadArray(BaseTransform):
    def transform(self, results):
        results['img'] = 255 - cv2.imread(results['img_path'])
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results
"""


@pytest.fixture(scope='module', params=['gray', 'own loader'])
def other_loading(folder, request):
    """A config that does not load BGR, its weights, and what its own pipeline makes of an image."""
    config = folder / f'{request.param.replace(" ", "_")}.py'
    config.write_text(GRAY if request.param == 'gray' else OWN_LOADER)
    (folder / 'loader_of_mine.py').write_text(LOADER)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        cfg = Config.fromfile(config)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        torch.save(dict(state_dict=model.state_dict()), config.with_suffix('.pth'))
        yield config, cfg, model.eval()


def test_the_loading_of_the_config_is_used(other_loading, folder, tmp_path):
    """Against mmdet's own pipeline, for pictures, JSON, videos and levels."""
    config, cfg, model = other_loading
    image = images(folder)[0]
    data = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=str(image), img_id=0))
    with torch.no_grad():
        expected = model.test_step(pseudo_collate([data]))[0].pred_instances
    clip = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*'MJPG'), 7, (64, 64))
    writer.write(cv2.imread(str(image)))
    writer.release()
    words = [config, config.with_suffix('.pth'), image]
    run_tool('image_demo', *words, clip, '--out-dir', tmp_path / 'out', '--device', 'cpu')
    found = json.loads((tmp_path / 'out' / 'preds' / f'{image.stem}.json').read_text())
    assert len(found['scores']) == len(expected) > 0
    np.testing.assert_allclose(found['bboxes'], expected.bboxes.numpy(), atol=1e-4)
    [frame] = json.loads((tmp_path / 'out' / 'preds' / 'clip.json').read_text())
    pixels = mmcv.VideoReader(str(clip))[0]  # as the codec keeps them
    mmcv.imwrite(pixels, str(tmp_path / 'frame.png'))
    data = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=str(tmp_path / 'frame.png'), img_id=0))
    with torch.no_grad():
        expected = model.test_step(pseudo_collate([data]))[0].pred_instances
    assert len(frame['scores']) == len(expected) > 0 and (tmp_path / 'out' / 'vis' / 'clip.mp4').is_file()
    np.testing.assert_allclose(frame['scores'], expected.scores.numpy(), atol=1e-3)  # OpenCV has two ways to gray
    run_tool('level_distribution', *words, '--out-dir', tmp_path / 'levels', '--device', 'cpu')
    assert (tmp_path / 'levels' / f'levels_{image.stem}.png').is_file()


def test_a_process_of_its_own_loads_by_the_registry_of_mmdet(folder):
    """The names of a pipeline mean mmdet's transforms, whatever was built before."""
    code = (
        'import sys; from mmpanet.apis.image_loader import ImageLoader; from mmpanet.utils.configs import load_config; '
        'image, data = ImageLoader(load_config(sys.argv[1]))(sys.argv[2]); print(*image.shape, *data["inputs"].shape)'
    )
    command = [sys.executable, '-c', code, str(folder / 'tiny.py'), str(images(folder)[0])]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert done.stdout.split() == ['64', '64', '3', '3', '64', '64'], done.stderr


@pytest.mark.parametrize('test_data', [None, {}], ids=['None', 'empty'])
def test_a_config_without_test_data_is_named(folder, test_data):
    cfg = Config.fromfile(folder / 'tiny.py')
    cfg.test_dataloader = test_data
    with pytest.raises(
        ConfigError, match='test_dataloader.dataset is not in the config, and its pipeline is what loads'
    ):
        load_inferencer(cfg, folder / 'weights.pth', 'cpu')


def test_images_of_which_only_a_part_would_be_loaded(folder, demo, tmp_path):
    inside = tmp_path / 'kinds'
    inside.mkdir()
    pages = [Image.new('RGB', (64, 64), color) for color in ('red', 'green', 'blue')]
    pages[0].save(inside / 'stack.tif', save_all=True, append_images=pages[1:])
    pages[0].save(inside / 'moving.webp', save_all=True, append_images=pages[1:])
    cv2.imwrite(str(inside / 'deep.png'), np.full((64, 64), 4000, np.uint16))
    pages[0].save(inside / 'plain.png')
    with pytest.raises(SystemExit) as error:
        demo(inside)
    lines = sorted(str(error.value).splitlines())
    assert [Path(line.split(': ')[1]).name for line in lines] == ['deep.png', 'moving.webp', 'stack.tif']
    assert '16 bits' in lines[0] and '3 pages' in lines[1] and '3 pages' in lines[2]
    assert [path.name for path in (tmp_path / 'out' / 'preds').iterdir()] == ['plain.json']


@pytest.mark.skipif(not hasattr(torch, 'uint16'), reason='mmdet hands the array to torch, which has uint16 since 2.3')
def test_deep_images_are_taken_where_the_config_keeps_their_bits(folder, tmp_path):
    config = folder / 'deep.py'
    config.write_text(GRAY.replace("'grayscale'", "'unchanged', to_float32=True"))
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'deep.pth')
    cv2.imwrite(str(tmp_path / 'deep.png'), np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    words = [config, tmp_path / 'deep.pth', tmp_path / 'deep.png', '--out-dir', tmp_path, '--device', 'cpu']
    run_tool('image_demo', *words, '--score-thr', 1)
    drawn = cv2.imread(str(tmp_path / 'vis' / 'deep.png'))
    assert drawn.min() < 20 and drawn.max() > 240  # scaled to be seen


@pytest.mark.parametrize('loader', [pytest.param('cv2', marks=pytest.mark.slow), 'pillow'])
def test_large_images(folder, demo, tmp_path, loader):
    """Pillow by itself refuses 179 million pixels and more."""
    large = np.zeros((13500, 13500), np.uint8)
    cv2.imwrite(str(tmp_path / 'large.png'), large)
    words = [
        '--no-pictures',
        '--cfg-options',
        f'test_dataloader.dataset.pipeline.0.imdecode_backend={loader}',
        'model.test_cfg.rcnn.score_thr=1.0',  # masks of that size take their time
    ]
    if loader == 'cv2':
        demo(tmp_path / 'large.png', *words)
        assert (tmp_path / 'out' / 'preds' / 'large.json').is_file()
    else:
        with pytest.raises(SystemExit, match="large.png: cannot be loaded by the config's test pipeline: .*pixels"):
            demo(tmp_path / 'large.png', *words)


# Its annotations are not at hand, as on a machine that only predicts.
IN_A_WRAPPER = """
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
inner = dict(type='CocoDataset', ann_file='gone.json', metainfo=dict(classes=('a', 'b', 'c', 'd')), pipeline=pipeline)
test_dataloader = dict(dataset=dict(_delete_=True, type='ConcatDataset', datasets=[inner]))
del inner, pipeline
"""


@pytest.mark.parametrize(
    'meta, change, names',
    [
        (None, '', ('ellipse', 'triangle', 'star', 'ring')),
        (dict(dataset_meta=None), '', ('ellipse', 'triangle', 'star', 'ring')),
        (dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd'))), '', ('a', 'b', 'c', 'd')),
        (dict(dataset_meta=dict(CLASSES=('a', 'b', 'c', 'd'))), '', ('a', 'b', 'c', 'd')),
        (dict(CLASSES=('a', 'b', 'c', 'd')), '', ('a', 'b', 'c', 'd')),
        (None, "test_dataloader['dataset']['metainfo'] = dict(_delete_=True)\n", ('0', '1', '2', '3')),
        (None, "test_dataloader['dataset']['metainfo'] = dict(classes='names.txt')\n", ('a', 'b', 'c', 'd')),
        (None, IN_A_WRAPPER, ('a', 'b', 'c', 'd')),
    ],
    ids=['bare', 'empty', 'own', 'upper case', 'of 2.x', 'of no data', 'of a file', 'in a wrapper'],
)
def test_class_names(folder, tmp_path, monkeypatch, meta, change, names):
    """Never those of COCO because a checkpoint has none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('a\nb\nc\nd\n')
    text = (folder / 'tiny.py').read_text()
    if change:
        text += 'for loader in (train_dataloader, val_dataloader):\n'
        text += "    loader['dataset'].update(metainfo=dict(_delete_=True))\ndel loader\n"
    config = tmp_path / 'names.py'
    config.write_text(text + change)
    state_dict = torch.load(folder / 'weights.pth', weights_only=True)['state_dict']
    torch.save(state_dict if meta is None else dict(state_dict=state_dict, meta=meta), tmp_path / 'bare.pth')
    inferencer = load_inferencer(Config.fromfile(config), tmp_path / 'bare.pth', 'cpu')
    assert tuple(inferencer.model.dataset_meta['classes']) == names
    assert inferencer.visualizer.dataset_meta['classes'] == inferencer.model.dataset_meta['classes']
    # The graph itself takes seconds, and is tested in tests/test_deploy.
    monkeypatch.setattr(export, '_export', lambda detector, dtype, sizes, path: path.write_bytes(b''))
    run_tool('export_onnx', config, tmp_path / 'bare.pth', '--out', tmp_path / 'graph')
    assert json.loads((tmp_path / 'graph' / 'detector.json').read_text())['classes'] == list(names)


@pytest.mark.parametrize('fps', [211.222, 66.667, 29.97, 240.0, 1000.4])
def test_videos_keep_their_frame_rate(tmp_path, monkeypatch, fps):
    """MPEG-4 counts time in at most 65535 parts of a second, and OpenCV takes 1000 times the rate."""
    monkeypatch.setattr(video.mmcv, 'VideoReader', lambda path: SimpleNamespace(fps=fps))
    writer = VideoWriter(tmp_path / 'a.mp4', tmp_path / 'source.mov')
    writer.add([np.zeros((64, 64, 3), np.uint8)] * 3)
    writer.close()
    monkeypatch.undo()
    reader = mmcv.VideoReader(str(tmp_path / 'a.mp4'))
    assert reader.frame_cnt == 3 and reader.fps == pytest.approx(fps, rel=1e-3)
