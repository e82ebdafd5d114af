# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``fp16=True`` of a test loop, for which mmengine takes bfloat16 on a CPU."""

from functools import partial

import pytest
import torch
from mmengine.config import Config
from small_detectors import FPN, ONE_STAGE, authors_boxes, build, config, one_stage, pixels, with_roi_head
from tiny_training import make_data, run_tool, tiny_config

from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmpanet.engine.runner import checking_runner
from mmpanet.utils.limits_of_mmcv import use_mmcv_in_float32

SIZES = dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1.0, 1.0), batch_input_shape=(96, 128))
DETECTORS = {
    'Mask R-CNN': lambda: config(FPN),
    'Cascade': lambda: with_roi_head(FPN, 'CascadeRoIHead'),
    'PANet': config,
    "the authors' boxes": authors_boxes,
    **{kind: partial(one_stage, kind) for kind in ONE_STAGE},
}


@pytest.mark.parametrize('kind', DETECTORS)
def test_detectors_predict_in_bfloat16(kind):
    """They find as much as in float32, and boxes and masks stay in float32."""
    model = build(DETECTORS[kind](), **({'model.test_cfg.score_thr': 0.0} if kind in ONE_STAGE else {}))
    images = torch.from_numpy(pixels((96, 128), 0)).permute(2, 0, 1)
    data = dict(inputs=[images], data_samples=[DetDataSample(metainfo=dict(SIZES))])
    data = model.data_preprocessor(data, training=False)

    def predict():
        with torch.no_grad():
            return model.predict(data['inputs'], [one.clone() for one in data['data_samples']])[0].pred_instances

    exact, outputs = predict(), []
    use_mmcv_in_float32(model)
    model.backbone.register_forward_hook(lambda part, args, output: outputs.append(output[0].dtype))
    with torch.autocast('cpu', torch.bfloat16):
        found = predict()
    assert outputs == [torch.bfloat16] and found.bboxes.dtype == found.scores.dtype == torch.float32
    assert len(exact) >= 20 and abs(len(found) - len(exact)) <= 2
    assert abs(float(found.scores.mean() - exact.scores.mean())) < 0.02 and not found.scores.equal(exact.scores)
    assert found.get('masks', torch.ones(0)).dtype == exact.get('masks', torch.ones(0)).dtype


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('bfloat16')
    data = make_data(folder / 'data', num_train=2, num_val=2)
    tiny_config(folder / 'tiny.py', data, 'model["test_cfg"] = dict(rcnn=dict(score_thr=0.0))\n')
    torch.manual_seed(0)
    torch.save(
        dict(state_dict=MODELS.build(Config.fromfile(folder / 'tiny.py').model).state_dict()), folder / 'tiny.pth'
    )
    return folder


@pytest.mark.parametrize('sets, warns', [(['AVX2'], True), (['AVX2', 'BF16'], False)], ids=str)
def test_the_tool(folder, monkeypatch, sets, warns):
    """A PANet is evaluated, and who has no instructions for it is told that it is slow."""
    dtypes, warnings = [], []
    monkeypatch.setattr('mmpanet.utils.environment.instruction_sets', lambda: sets)
    predict = MODELS.get('MaskRCNN').predict

    def spy(self, inputs, *args, **kwargs):
        dtypes.append(torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype)
        return predict(self, inputs, *args, **kwargs)

    monkeypatch.setattr(MODELS.get('MaskRCNN'), 'predict', spy)
    prepare = checking_runner.CheckingRunner._prepare_for_autocast

    def watch(self, loop):
        monkeypatch.setattr(self.logger, 'warning', warnings.append)
        prepare(self, loop)

    monkeypatch.setattr(checking_runner.CheckingRunner, '_prepare_for_autocast', watch)
    run_tool(
        'test',
        folder / 'tiny.py',
        folder / 'tiny.pth',
        '--work-dir',
        folder / 'run',
        '--cfg-options',
        'test_cfg.fp16=True',
    )
    assert dtypes == [torch.bfloat16] * 2
    assert any('no instructions for bfloat16' in line for line in warnings) == warns
    run_tool('test', folder / 'tiny.py', folder / 'tiny.pth', '--work-dir', folder / 'run')
    assert dtypes[2:] == [torch.float32] * 2
