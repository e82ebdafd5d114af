# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The recorder, the hook and the tool on a detector."""

import json
from pathlib import Path
from types import SimpleNamespace

import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.runner import save_checkpoint
from repository import ROOT
from tiny_training import make_data, run_tool, tiny_config, write_config
from torch.nn.parallel import DataParallel

from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.engine.hooks import LevelDistributionHook
from mmpanet.engine.runner.checking_runner import build_runner
from mmpanet.visualization import LevelRecorder, level_shares

HOOK = "custom_hooks = [dict(type='LevelDistributionHook', interval=2, num_pictures=1)]\n"
GATES_OF_NECK = "model['neck']['path_gate'] = True\n"
GATES_OF_HEAD = (
    "model['roi_head']['bbox_roi_extractor']['own_level_first'] = True\n"
    "model['roi_head']['bbox_head'].update(level_gate=True, level_fusion='sum')\n"
)
ONE_LEVEL = """
for branch in ('bbox', 'mask'):
    model['roi_head'][f'{branch}_roi_extractor']['type'] = 'SingleRoIExtractor'
    model['roi_head'][f'{branch}_head']['num_levels'] = 1
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data):
    """A config, and a checkpoint of its model as it begins; with the hook in it, trained and evaluated."""
    folder = tmp_path_factory.mktemp('trained')
    cfg = tiny_config(
        folder / 'tiny.py',
        data,
        HOOK
        + (
            "train_cfg['max_epochs'] = 1\ntrain_cfg['val_interval'] = 1\n"
            "model['test_cfg'] = dict(rcnn=dict(score_thr=0.))\n"  # so that the mask head has something to do
            "vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]\n"
            'visualizer = dict(vis_backends=vis_backends)\n'
        ),
    )
    cfg.work_dir = str(folder / 'work')
    build_runner(cfg).train()
    return folder


def test_recorder_against_the_layers_themselves(tmp_path, data):
    """The recorder agrees with the pooling and the first layers on the same RoIs. Predictions do not change."""
    model = MODELS.build(tiny_config(tmp_path / 'tiny.py', data).model).eval()
    images = [torch.rand(3, 64, 64) * 255, torch.rand(3, 48, 64) * 255]
    batch = dict(inputs=images, data_samples=[_sample(image) for image in images])
    recorder = LevelRecorder(model)
    before = model.test_step(batch)
    assert not recorder.take()
    with recorder:
        during = model.test_step(batch)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for one, other in zip(before, during):
        assert one.pred_instances.scores.equal(other.pred_instances.scores)
    assert recorder.heads == ['bbox_head', 'mask_head'] and recorder.strides == [4, 8, 16, 32]
    assert [level.shape[-1] for level in recorder.pyramid] == [16, 8, 4, 2, 1]
    seen = recorder.take()
    assert not recorder.take()
    roi_head = model.roi_head
    for name, extractor, layer in [
        ('bbox_head', roi_head.bbox_roi_extractor, roi_head.bbox_head.shared_fcs[0]),
        ('mask_head', roi_head.mask_roi_extractor, roi_head.mask_head.convs[0]),
    ]:
        levels = seen[name]
        with torch.no_grad():
            expected = level_shares(layer, extractor(recorder.pyramid[:4], levels.rois))
        assert len(levels.rois) and torch.allclose(levels.shares, expected, atol=1e-6)
        parts = [levels.of_image(index) for index in range(2)]
        assert sum(len(part.rois) for part in parts) == len(levels.rois)
        assert (parts[1].rois[:, 0] == 1).all()


def _sample(image):
    shape = tuple(image.shape[1:])
    return DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))


def test_a_model_without_the_pooling_has_only_a_pyramid():
    model = MODELS.build(Config.fromfile(ROOT / 'configs/shapes/mask-rcnn_r18_fpn_shapes.py').model).eval()
    with LevelRecorder(model) as recorder:
        model.test_step(dict(inputs=[torch.rand(3, 64, 64)], data_samples=[_sample(torch.rand(3, 64, 64))]))
    assert not recorder.heads and not recorder.strides and not recorder.take() and len(recorder.pyramid) == 5


def shares_of_batches(trained, numbers):
    """The mean shares of the levels over some batches of the validation, by head."""
    cfg = Config.fromfile(trained / 'tiny.py')
    cfg.work_dir, cfg.load_from = str(trained / 'again'), str(trained / 'work' / 'epoch_1.pth')
    runner = build_runner(cfg)
    runner.load_or_resume()
    recorder = LevelRecorder(runner.model.eval())
    distributions = recorder.new_distributions()
    for number, batch in enumerate(runner.val_dataloader):
        if number in numbers:
            with recorder, torch.no_grad():
                runner.model.val_step(batch)
            for head, levels in recorder.take().items():
                distributions[head].add(levels)
    return {head: distribution.as_dict()['all'] for head, distribution in distributions.items()}


def test_hook_draws_at_every_validation(trained):
    (run,) = (path for path in (trained / 'work').iterdir() if path.is_dir())
    pictures = sorted(path.name for path in (run / 'vis_data' / 'vis_image').iterdir())
    assert pictures == ['level_distribution_2.png', 'levels_1_2.png']
    lines = [json.loads(line) for line in (run / 'vis_data' / 'scalars.json').read_text().splitlines()]
    shares = [line for line in lines if 'level_share/bbox_head/stride_4' in line]
    assert len(shares) == 1
    for head in ('bbox_head', 'mask_head'):
        values = [value for key, value in shares[0].items() if key.startswith(f'level_share/{head}/')]
        assert values == pytest.approx(shares_of_batches(trained, [0, 2])[head])
    assert list((run / 'vis_data').glob('events.out.tfevents*'))


@pytest.mark.parametrize('heads', [GATES_OF_HEAD, ONE_LEVEL], ids=['gates in neck and head', 'in the neck alone'])
def test_hook_draws_the_gates(tmp_path, data, heads):
    cfg = tiny_config(
        tmp_path / 'tiny.py',
        data,
        HOOK + GATES_OF_NECK + heads + "train_cfg['max_epochs'] = 1\ntrain_cfg['val_interval'] = 1\n",
    )
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    runner.train()
    (run,) = (path for path in (tmp_path / 'work').iterdir() if path.is_dir())
    assert (run / 'vis_data' / 'vis_image' / 'gates_2.png').is_file()
    lines = [json.loads(line) for line in (run / 'vis_data' / 'scalars.json').read_text().splitlines()]
    (line,) = (line for line in lines if 'level_gate/neck/1' in line)
    expected = runner.model.neck.path_gates.abs().mean(dim=1).tolist()
    assert [line[f'level_gate/neck/{i}'] for i in (1, 2, 3)] == pytest.approx(expected)
    assert any(expected)
    has_levels = heads == GATES_OF_HEAD
    if has_levels:
        (gates,) = (value for name, value in runner.model.named_parameters() if name.endswith('level_gates'))
        found = [line[f'level_gate/bbox_head.shared_fcs.0/{i}'] for i in (1, 2, 3)]
        assert found == pytest.approx(gates.abs().mean(dim=1).tolist()) and any(found)
    assert (run / 'vis_data' / 'vis_image' / 'level_distribution_2.png').is_file() == has_levels


def test_hook_shows_the_gates_that_were_evaluated(tmp_path, data):
    """With EMAHook these are the averages."""
    hooks = "custom_hooks = [dict(type='EMAHook', momentum=0.5), dict(type='LevelDistributionHook')]\n"
    cfg = tiny_config(
        tmp_path / 'tiny.py', data, hooks + GATES_OF_NECK + 'train_cfg.update(max_epochs=1, val_interval=1)\n'
    )
    cfg.work_dir = str(tmp_path / 'work')
    runner = build_runner(cfg)
    runner.train()
    (scalars,) = (tmp_path / 'work').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    (line,) = (line for line in lines if 'level_gate/neck/1' in line)
    ema = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model.module
    averages, trained = (model.neck.path_gates.abs().mean(dim=1).tolist() for model in (ema, runner.model))
    assert averages != pytest.approx(trained)
    assert [line[f'level_gate/neck/{i}'] for i in (1, 2, 3)] == pytest.approx(averages)


def test_hook_draws_no_image_that_is_augmented():
    """The RoIs of a flipped image lie elsewhere."""
    detector = MODELS.build(Config.fromfile(ROOT / 'configs/shapes/mask-rcnn_r18_panet_shapes.py').model)
    hook = LevelDistributionHook()
    hook.before_run(SimpleNamespace(model=DataParallel(DetTTAModel(module=detector))))
    assert hook.num_pictures == 0


def test_hook_is_refused_where_nothing_is_pooled(tmp_path, data):
    cfg = Config.fromfile(write_config(tmp_path / 'tiny.py', data, HOOK))
    fpn = Config.fromfile(ROOT / 'configs/shapes/mask-rcnn_r18_fpn_shapes.py')
    cfg.model, cfg.work_dir = fpn.model, str(tmp_path / 'work')
    with pytest.raises(ValueError, match='AdaptiveFeaturePooling.*custom_hooks'):
        build_runner(cfg).train()


@pytest.mark.parametrize('argument', [dict(interval=0), dict(num_pictures=-1), dict(num_pictures='all')])
def test_wrong_arguments_of_the_hook(argument):
    with pytest.raises(ValueError, match=f'{list(argument)[0]}={list(argument.values())[0]!r} must be'):
        LevelDistributionHook(**argument)


def test_tool(trained, data, tmp_path, capsys):
    words = trained / 'tiny.py', trained / 'work' / 'epoch_1.pth', '--device', 'cpu'
    run_tool('level_distribution', *words, '--num-images', 3, '--num-pictures', 2, '--out-dir', tmp_path / 'out')
    names = sorted(path.name for path in (tmp_path / 'out').iterdir())
    assert names[:2] == ['level_distribution.json', 'level_distribution.png'] and len(names) == 4
    assert '3 images' in capsys.readouterr().out
    result = json.loads((tmp_path / 'out' / 'level_distribution.json').read_text())
    assert result['bbox_head']['strides'] == [4, 8, 16, 32] and sum(result['bbox_head']['all']) == pytest.approx(1)
    assert mmcv.imread(str(tmp_path / 'out' / names[2])).std() > 5
    # images that are named
    images = sorted(Path(data, 'images').glob('val_*'))[:2]
    run_tool('level_distribution', *words, *images, '--out-dir', tmp_path / 'named')
    assert (tmp_path / 'named' / f'levels_{images[1].stem}.png').is_file()
    with pytest.raises(SystemExit, match='nothing.png: no such file'):
        run_tool('level_distribution', *words, tmp_path / 'nothing.png', '--out-dir', tmp_path / 'none')
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('heads', [True, False])
def test_tool_shows_the_gates(data, tmp_path, capsys, heads):
    cfg = tiny_config(tmp_path / 'tiny.py', data, GATES_OF_NECK + (GATES_OF_HEAD if heads else ONE_LEVEL))
    model = MODELS.build(cfg.model)
    with torch.no_grad():
        model.neck.path_gates[1].fill_(-0.5)
        if heads:
            model.roi_head.bbox_head.shared_fcs[0].level_gates[2, 0] = 1.0
    save_checkpoint(dict(state_dict=model.state_dict(), meta={}), str(tmp_path / 'gates.pth'))
    words = tmp_path / 'tiny.py', tmp_path / 'gates.pth', '--device', 'cpu', '--num-images', 1, '--out-dir'
    run_tool('level_distribution', *words, tmp_path / 'out')
    gates = json.loads((tmp_path / 'out' / 'gates.json').read_text())
    assert list(gates) == (['neck', 'bbox_head.shared_fcs.0'] if heads else ['neck'])
    assert torch.tensor(gates['neck']).equal(model.neck.path_gates)
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith('neck, mean magnitude') and line.endswith(': 0.000, 0.500, 0.000') for line in lines)
    if heads:
        assert torch.tensor(gates['bbox_head.shared_fcs.0']).equal(model.roi_head.bbox_head.shared_fcs[0].level_gates)
    assert mmcv.imread(str(tmp_path / 'out' / 'gates.png')).std() > 5
    assert (tmp_path / 'out' / 'level_distribution.png').exists() == heads
