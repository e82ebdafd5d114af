# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``fp16=True`` of a test or validation loop, for which mmengine takes bfloat16 on a CPU."""

import copy
import pickle
from functools import partial

import pytest
import torch
from mmengine.config import Config
from small_detectors import FPN, ONE_STAGE, authors_boxes, build, config, one_stage, pixels, with_roi_head
from tiny_training import make_data, run_tool, tiny_config

from mmdet.models.roi_heads.mask_heads import fcn_mask_head
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.engine.runner import checking_runner
from mmpanet.utils.limits_of_mmcv import use_mmcv_in_float32, use_mmcv_with_contiguous_maps

SIZES = dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0), batch_input_shape=(96, 128))


def deformable():
    cfg = config(FPN)
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
    cfg.model.backbone.update(depth=50, base_channels=8, dcn=dcn, stage_with_dcn=(False, False, False, True))
    cfg.model.neck.in_channels = [32, 64, 128, 256]
    return cfg


DETECTORS = {
    'Mask R-CNN': lambda: config(FPN),
    'Cascade': lambda: with_roi_head(FPN, 'CascadeRoIHead'),
    'deformable convolutions': deformable,
    'PANet': config,
    "the authors' boxes": authors_boxes,
    **{kind: partial(one_stage, kind) for kind in ONE_STAGE},
}


def detector(kind):
    return build(DETECTORS[kind](), **({'model.test_cfg.score_thr': 0.0} if kind in ONE_STAGE else {}))


def predict(model):
    images = torch.from_numpy(pixels((96, 128), 0)).permute(2, 0, 1)
    data = dict(inputs=[images], data_samples=[DetDataSample(metainfo=dict(SIZES))])
    data = model.data_preprocessor(data, training=False)
    with torch.no_grad():
        return model.predict(data['inputs'], data['data_samples'])[0].pred_instances


def recorded(function, calls):
    """The function, which adds its positional arguments to a list."""

    def spy(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    return spy


def dtypes_of(calls):
    return {one.dtype for args in calls for one in args if isinstance(one, torch.Tensor)}


@pytest.mark.parametrize('kind', DETECTORS)
def test_detectors_predict_in_bfloat16(monkeypatch, kind):
    """They find as much as in float32, and make boxes and masks out of float32 alone."""
    model = detector(kind)
    exact, maps, decoded, pasted = predict(model), [], [], []
    use_mmcv_in_float32(model)
    model.backbone.register_forward_hook(lambda part, args, output: maps.append(output[:1]))
    for part in model.modules():
        if hasattr(part, 'bbox_coder'):
            part.bbox_coder.decode = recorded(part.bbox_coder.decode, decoded)
    monkeypatch.setattr(fcn_mask_head, '_do_paste_mask', recorded(fcn_mask_head._do_paste_mask, pasted))
    with torch.autocast('cpu', torch.bfloat16):
        found = predict(model)
    assert dtypes_of(maps) == {torch.bfloat16} and dtypes_of(decoded) == {torch.float32}
    assert dtypes_of(pasted) == (set() if kind in ONE_STAGE else {torch.float32})
    assert found.bboxes.dtype == found.scores.dtype == torch.float32
    assert len(exact) >= 20 and abs(len(found) - len(exact)) <= 2
    assert abs(float(found.scores.mean() - exact.scores.mean())) < 0.02 and not found.scores.equal(exact.scores)


def test_a_changed_model_is_the_same_in_float32():
    model = detector('Cascade')
    exact = predict(model)
    for change in (use_mmcv_in_float32, use_mmcv_with_contiguous_maps):
        change(model)
    once = copy.deepcopy(model)
    use_mmcv_in_float32(model)
    for one in (model, once, pickle.loads(pickle.dumps(model))):
        found = predict(one)
        assert found.bboxes.equal(exact.bboxes) and found.masks.equal(exact.masks)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bfloat16')
    data = make_data(folder / 'data', num_train=4, num_val=2)
    found = 'model["test_cfg"] = dict(rcnn=dict(score_thr=0.0))\n'
    tiny_config(folder / 'tiny.py', data, found)
    tiny_config(folder / 'averaged.py', data, f'{found}custom_hooks = [dict(type="EMAHook")]\n')
    torch.manual_seed(0)
    torch.save(
        dict(state_dict=MODELS.build(Config.fromfile(folder / 'tiny.py').model).state_dict()), folder / 'tiny.pth'
    )
    return folder


@pytest.fixture
def dtypes(monkeypatch):
    """Of a product of matrices in each prediction."""
    dtypes, predict = [], MODELS.get('MaskRCNN').predict

    def spy(self, *args, **kwargs):
        dtypes.append(torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype)
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(MODELS.get('MaskRCNN'), 'predict', spy)
    return dtypes


@pytest.mark.skipif(torch.cuda.is_available(), reason='mmengine then takes the GPU')
@pytest.mark.parametrize('sets, warns', [(['AVX2'], True), (['AVX2', 'BF16'], False)], ids=str)
def test_the_tool(folder, dtypes, monkeypatch, sets, warns):
    """A PANet is evaluated, and who has no instructions for it is told that it is slow."""
    warnings = []
    monkeypatch.setattr('mmpanet.utils.environment.instruction_sets', lambda: sets)
    prepare = checking_runner.CheckingRunner._prepare_for_autocast

    def watch(self, loop):
        monkeypatch.setattr(self.logger, 'warning', warnings.append)
        prepare(self, loop)

    monkeypatch.setattr(checking_runner.CheckingRunner, '_prepare_for_autocast', watch)
    words = 'test', folder / 'tiny.py', folder / 'tiny.pth', '--work-dir', folder / 'run'
    run_tool(*words, '--cfg-options', 'test_cfg.fp16=True')
    assert dtypes == [torch.bfloat16] * 2
    assert any('no instructions for bfloat16' in line for line in warnings) == warns
    run_tool(*words)
    assert dtypes[2:] == [torch.float32] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason='mmengine then takes the GPU')
def test_evaluations_in_bfloat16_leave_a_training_as_it_is(folder, dtypes):
    weights = []
    for fp16 in (True, False):
        options = f'val_cfg.fp16={fp16}', 'train_cfg.val_interval=1'
        run = folder / f'train_{fp16}'
        run_tool('train', folder / 'averaged.py', '--work-dir', run, '--cfg-options', *options)
        checkpoint = torch.load(run / 'epoch_2.pth', weights_only=False)
        weights.append({**checkpoint['state_dict'], **checkpoint['ema_state_dict']})
    assert dtypes == [torch.bfloat16] * 4 + [torch.float32] * 4
    assert all(weight.equal(weights[1][name]) for name, weight in weights[0].items())
