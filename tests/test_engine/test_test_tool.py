# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What tools/test.py writes, and what its options change."""

import errno
import json
import pickle

import pytest
import torch
from mmengine.config import Config
from tiny_training import make_data, run_tool, tiny_config

from mmdet.registry import MODELS
from mmpanet.evaluation import whole_dump
from mmpanet.utils.palette import give_enough_colors

BOXES = 'model.roi_head.mask_head=None', 'model.roi_head.mask_roi_extractor=None', 'test_evaluator.metric=bbox'

MANY = """
metainfo = dict(classes=tuple(['ellipse', 'triangle', 'star', 'ring'] + [f'class {i}' for i in range(96)]))
model['roi_head']['bbox_head']['num_classes'] = model['roi_head']['mask_head']['num_classes'] = 100
test_dataloader['dataset'].update(metainfo=dict(metainfo, _delete_=True), ann_file='many.json')
test_evaluator = dict(ann_file=test_dataloader['dataset']['data_root'] + 'many.json')
"""
TWICE = """
flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=0.0)]
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0),
    dict(type='TestTimeAug', transforms=[flips, [dict(type='PackDetInputs', meta_keys=meta_keys)]])]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A config, its weights, and images. The scores of the model are spread, so that it finds objects."""
    folder = tmp_path_factory.mktemp('test')
    data = make_data(folder / 'data', num_train=2, num_val=3)
    cfg = tiny_config(folder / 'tiny.py', data, 'model["test_cfg"] = dict(rcnn=dict(score_thr=0.0))\n')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), folder / 'tiny.pth')
    boxes = {key: value for key, value in torch.load(folder / 'tiny.pth')['state_dict'].items() if 'mask' not in key}
    torch.save(dict(state_dict=boxes), folder / 'boxes.pth')
    return folder


def test(folder, *words, weights='tiny.pth', config='tiny.py'):
    run_tool('test', folder / config, folder / weights, '--work-dir', folder / 'run', *words)


test.__test__ = False  # it is a helper


def predictions(file):
    """Boxes of all images."""
    return [one['pred_instances']['bboxes'] for one in pickle.loads(file.read_bytes())]


def test_predictions_are_written_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    out = tmp_path / 'p.pkl'
    test(folder, '--out', out)
    before, found = out.read_bytes(), predictions(out)
    assert len(found) == 3 and all(len(boxes) for boxes in found)

    def full(results, file):
        with open(file, 'wb') as stream:
            stream.write(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device', file)

    monkeypatch.setattr(whole_dump, 'dump', full)
    with pytest.raises(SystemExit, match='--out .*p.pkl: No space left on device'):
        test(folder, '--out', out)
    assert out.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ['p.pkl']


def test_predictions_of_other_runners_and_behind_links(folder, tmp_path):
    (tmp_path / 'far').mkdir()
    (tmp_path / 'p.pkl').symlink_to(tmp_path / 'far' / 'p.pkl')
    test(folder, '--out', tmp_path / 'p.pkl', '--cfg-options', 'runner_type=Runner')
    assert (tmp_path / 'p.pkl').is_symlink() and len(predictions(tmp_path / 'far' / 'p.pkl')) == 3


def test_pictures_need_the_hook_that_draws_them(folder):
    for value in ('None', 'dict()'):
        with pytest.raises(SystemExit, match='--show and --show-dir need default_hooks.visualization=dict'):
            test(folder, '--show-dir', 'x', '--cfg-options', f'default_hooks={value}')


def test_pictures_of_more_classes_than_coco_has(folder):
    """``CocoDataset`` has 80 colors, whatever the classes are."""
    weights = torch.load(folder / 'tiny.pth')['state_dict']
    (folder / 'many.py').write_text((folder / 'tiny.py').read_text() + MANY)
    truth = json.loads((folder / 'data' / 'val.json').read_text())
    truth['categories'] += [dict(id=1000 + i, name=f'class {i}') for i in range(96)]
    (folder / 'data' / 'many.json').write_text(json.dumps(truth))
    state = MODELS.build(Config.fromfile(folder / 'many.py').model).state_dict()
    state.update({key: value for key, value in weights.items() if value.shape == state[key].shape})
    state['roi_head.bbox_head.fc_cls.bias'][90] = 5
    torch.save(dict(state_dict=state), folder / 'many.pth')
    draw = ['default_hooks.visualization.interval=1', 'default_hooks.visualization.score_thr=0.01']
    test(folder, '--show-dir', 'vis', '--cfg-options', *draw, weights='many.pth', config='many.py')
    assert len(list((folder / 'run').glob('*/vis/*.png'))) == 3


def test_colors_of_several_datasets_and_of_one_color():
    first, second, third = dict(classes='abc', palette=[(1, 2, 3)]), dict(classes='a', palette=[(1, 2, 3)]), dict()
    give_enough_colors([first, second, third])
    assert first['palette'] == 'random' and second['palette'] == [(1, 2, 3)] and third == {}
    one_color = dict(classes='abcd', palette=(1, 2, 3))  # of mmdet: for all classes
    give_enough_colors(one_color)
    give_enough_colors(None)
    assert one_color['palette'] == (1, 2, 3)


def test_data_are_checked_with_out_too(folder, tmp_path):
    (tmp_path / 'cut.json').write_text('{"images": [')
    words = [f'{key}={tmp_path}/cut.json' for key in ('test_dataloader.dataset.ann_file', 'test_evaluator.ann_file')]
    with pytest.raises(SystemExit, match=r'test\.py: .*cut\.json'):
        test(folder, '--out', tmp_path / 'p.pkl', '--cfg-options', *words)
    assert not (tmp_path / 'p.pkl').exists()


def test_test_time_augmentation_merges_images(folder, tmp_path):
    """Two equal images give what one gives. A flipped one gives other boxes."""
    plain, augmented, twice = (tmp_path / f'{name}.pkl' for name in ('plain', 'augmented', 'twice'))
    options = ['--cfg-options', *BOXES]
    test(folder, '--out', plain, *options, weights='boxes.pth')
    test(folder, '--tta', '--out', augmented, *options, weights='boxes.pth')
    config = (folder / 'tiny.py').read_text()
    (folder / 'twice.py').write_text(config + TWICE)
    test(folder, '--tta', '--out', twice, *options, weights='boxes.pth', config='twice.py')
    expected = predictions(plain)
    for boxes, same, others in zip(expected, predictions(twice), predictions(augmented)):
        assert len(boxes) > 3 and len(others) > 3
        torch.testing.assert_close(same, boxes, rtol=0, atol=1e-3)
        assert others.shape != boxes.shape or not torch.allclose(others, boxes, atol=1)
