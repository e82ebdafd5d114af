# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``.dev_scripts/growth.py``: which ways begin as the FPN, and what each of them changes."""

import runpy
import sys

import pytest
import torch
from mmengine.config import Config
from repository import ROOT

from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs

SCRIPT = ROOT / '.dev_scripts' / 'growth.py'
CONFIG = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_fpn_shapes.py'
if not SCRIPT.is_file():
    pytest.skip('only a checkout has .dev_scripts', allow_module_level=True)
WAYS = runpy.run_path(str(SCRIPT))['WAYS']
GROWN = ('grown-max', 'grown-sum', 'identity-max', 'identity-sum', 'neck', 'neck-gate', 'heads', 'boxes', 'masks')


@pytest.fixture(scope='module')
def fpn(tmp_path_factory):
    """A checkpoint of an FPN that finds something."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.3 if 'fc_cls' in name or 'logits' in name else 0.02))
    path = tmp_path_factory.mktemp('fpn') / 'fpn.pth'
    torch.save(dict(state_dict=model.state_dict(), meta=dict()), path)
    return path


@pytest.fixture(scope='module')
def written(fpn, tmp_path_factory):
    """The configs of all ways."""
    folder = tmp_path_factory.mktemp('growth')
    run(fpn, folder, '--ways', *WAYS, '--epochs', '7')
    return folder


def run(checkpoint, folder, *words):
    before = sys.argv
    sys.argv = ['growth.py', str(CONFIG), str(checkpoint), *words, '--out-dir', str(folder)]
    try:
        runpy.run_path(str(SCRIPT), run_name='__main__')
    finally:
        sys.argv = before


@torch.no_grad()
def detections(cfg):
    model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(cfg.load_from)['state_dict'], strict=True)
    model.eval()
    model.test_cfg.rcnn.score_thr = model.roi_head.test_cfg.score_thr = 0.0
    torch.manual_seed(0)
    batch = model.data_preprocessor(demo_mm_inputs(1, [[3, 160, 192]], num_classes=4, with_mask=True), False)
    [sample] = model.predict(batch['inputs'], batch['data_samples'], rescale=False)
    return sample.pred_instances


@pytest.mark.slow
def test_all_ways_begin_as_the_fpn_but_the_swapped_one(written):
    configs = {way: Config.fromfile(written / f'{way}_7e-lr5e-4_shapes.py') for way in WAYS}
    expected = detections(configs['fpn'])
    assert len(expected) > 20 and expected.masks.any()
    for way in (*GROWN, 'fusion'):
        found = detections(configs[way])
        torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4, msg=way)
        torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=0, atol=1e-2, msg=way)
        assert (found.masks != expected.masks).double().mean() < 1e-5, way
    found = detections(configs['swapped'])
    assert len(found) != len(expected) or (found.scores - expected.scores).abs().max() > 1e-3


@pytest.mark.slow
def test_what_the_ways_change(written):
    for way in WAYS:
        cfg = Config.fromfile(written / f'{way}_7e-lr5e-4_shapes.py')
        roi_head, keys = cfg.model.roi_head, cfg.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
        parts = (
            cfg.model.neck.type == 'PANetNeck',
            roi_head.bbox_head.get('num_levels', 1) > 1 or 'PANet' in roi_head.bbox_head.type,
            roi_head.mask_head.type == 'FCFusionMaskHead' and roi_head.mask_head.get('num_levels', 4) > 1,
        )
        assert parts == {
            'fpn': (False, False, False),
            'fusion': (False, False, False),
            'neck': (True, False, False),
            'neck-gate': (True, False, False),
            'heads': (False, True, True),
            'boxes': (False, True, False),
            'masks': (False, False, True),
        }.get(way, (True, True, True)), way
        assert (roi_head.mask_head.type == 'FCFusionMaskHead') == (way not in ('fpn', 'neck', 'neck-gate', 'boxes'))
        assert cfg.model.neck.get('path_gate', False) == (way in ('grown-max', 'grown-sum', 'neck-gate')), way
        has_gates = way in GROWN and way not in ('neck', 'neck-gate')
        assert ('level_gates' in keys) == (has_gates or way == 'neck-gate'), way
        limited = [key for key in keys if 'roi_head' in key or '.levels' in key or 'convs' in key or 'fcs' in key]
        assert bool(limited) == (has_gates and not way.startswith('identity')), (way, keys)
        assert cfg.train_cfg.max_epochs == 7 and cfg.custom_hooks[-1].type == 'EvaluateFirstHook'


def test_sgd(fpn, tmp_path):
    """All of the optimizer is another one, and the swap sets no limits for gates and layers behind them."""
    run(fpn, tmp_path, '--sgd', '--lr', '0.005', '--ways', 'fpn', 'grown-sum')
    old, new = (Config.fromfile(tmp_path / f'{way}-sgd_3e-lr0.005_shapes.py') for way in ('fpn', 'grown-sum'))
    sgd = dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=1e-4)
    assert old.optim_wrapper.optimizer == new.optim_wrapper.optimizer == sgd
    rates = dict(lr_mult=30, weight_decay=0.0)
    assert new.optim_wrapper.paramwise_cfg.custom_keys == dict(level_gates=rates, path_gates=rates)
