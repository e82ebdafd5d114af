# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``grow=True``: the swapped model is the old model at the start, under every RoI head, and can learn from there."""

import re
from collections import Counter

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import DefaultOptimWrapperConstructor, build_optim_wrapper
from mmengine.registry import init_default_scope
from tiny_training import run_tool

from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmpanet.swap import SwapError, swap_checkpoint, swap_config, verify
from mmpanet.swap.config import plan_swap
from mmpanet.swap.options import SwapOptions
from mmpanet.utils.errors import ConfigError

CONFIGS = {
    'Standard': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'Cascade': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'Dynamic': 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
    'PISA': 'pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py',
    'MaskScoring': 'ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py',
}
# One per RoI head and stage, and one of the neck.
NUM_GATES = {'Standard': 3, 'Cascade': 7, 'Dynamic': 2, 'PISA': 3, 'MaskScoring': 2}
# Weights that the FPN does not have: of the path, of levels other than a RoI's own, and of fully-connected fusion.
IS_NEW = re.compile(r'(downsample_convs|bottom_up_convs|levels\.[1-3]|conv[45]_fc|mask_fc)\..*weight$')
GN = dict(type='GN', num_groups=4)
BN = dict(type='BN')


def small(model):
    """Some 10^5 parameters, two samples per bin, and enough detections to compare."""
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.backbone.pop('style', None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    roi_head = model.roi_head
    for head in roi_head.bbox_head if isinstance(roi_head.bbox_head, list) else [roi_head.bbox_head]:
        head.update(in_channels=16, fc_out_channels=32, num_classes=3)
    roi_head.bbox_roi_extractor.update(out_channels=16)
    roi_head.bbox_roi_extractor.roi_layer.sampling_ratio = 2
    if roi_head.get('mask_head'):
        roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3)
        roi_head.mask_roi_extractor.update(out_channels=16)
        roi_head.mask_roi_extractor.roi_layer.sampling_ratio = 2
    if roi_head.get('mask_iou_head'):
        roi_head.mask_iou_head.update(in_channels=16, conv_out_channels=16, fc_out_channels=16, num_classes=3)
    model.test_cfg.rpn.update(nms_pre=100, max_per_img=40)
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
    return model


def heads_of(cfg, key):
    heads = cfg.model.roi_head.get(key)
    return list(heads) if isinstance(heads, (list, tuple)) else [heads] if heads else []


@pytest.fixture
def old(zoo_config):
    def build(kind, norm_cfg=None):
        cfg = Config(dict(model=small(zoo_config(CONFIGS[kind]).model), default_scope='mmdet'))
        if norm_cfg:
            for head in heads_of(cfg, 'bbox_head'):
                head.update(type='Shared4Conv1FCBBoxHead', conv_out_channels=16, norm_cfg=norm_cfg)
            for part in (*heads_of(cfg, 'mask_head'), cfg.model.neck):
                part.norm_cfg = norm_cfg
        init_default_scope('mmdet')
        model = MODELS.build(cfg.model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.add_(torch.randn_like(parameter) * (0.3 if 'fc_cls' in name or 'logits' in name else 0.05))
        return cfg, model.eval()

    return build


@pytest.mark.parametrize('level_fusion', ['max', 'sum'])
@pytest.mark.parametrize('norm_cfg', [None, GN, BN], ids=str)
@pytest.mark.parametrize('kind', CONFIGS)
def test_the_grown_model_starts_as_the_old_one(old, tmp_path, kind, norm_cfg, level_fusion):
    cfg, model = old(kind, norm_cfg)
    new_cfg = swap_config(cfg, roi_head=True, grow=True, level_fusion=level_fusion)
    heads = heads_of(new_cfg, 'bbox_head') + (heads_of(new_cfg, 'mask_head') if kind != 'MaskScoring' else [])
    assert all(head.level_gate and head.get('level_fusion', 'max') == level_fusion for head in heads)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'old.pth')
    found = verify(cfg, new_cfg, tmp_path / 'old.pth', runs=1)
    differences = {name: difference for name, (_, _, difference) in found.differences.items()}
    assert None not in differences.values()
    assert found.differences['pred_instances.bboxes'][0]  # there is something to compare
    assert differences['pred_instances.bboxes'] < 1e-3 and differences['pred_instances.scores'] < 1e-4
    assert differences.get('pred_instances.labels', 0) == 0
    # Of the pixels. The rounding of refined boxes may take one across the threshold.
    assert differences.get('pred_instances.masks', 0) <= (1e-5 if (kind, norm_cfg) == ('Cascade', BN) else 0)


@pytest.mark.parametrize(
    'extractor',
    [dict(type='FastSingleRoIExtractor'), dict(finest_scale=20), dict(type='FastSingleRoIExtractor', finest_scale=112)],
    ids=str,
)
def test_the_own_level_of_a_roi_is_that_of_the_old_extractor(old, tmp_path, extractor):
    cfg, model = old('Standard')
    for branch in ('bbox', 'mask'):
        cfg.model.roi_head[f'{branch}_roi_extractor'].update(extractor)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'old.pth')

    def differences(finest_scale):
        new_cfg = swap_config(cfg, roi_head=True, grow=True)
        for branch in ('bbox', 'mask'):
            new = new_cfg.model.roi_head[f'{branch}_roi_extractor']
            assert new.type == 'AdaptiveFeaturePooling' and new.get('finest_scale') == extractor.get('finest_scale')
            if finest_scale:
                new.finest_scale = finest_scale
        found = verify(cfg, new_cfg, tmp_path / 'old.pth', runs=1).differences
        return [found[f'pred_instances.{name}'][2] for name in ('bboxes', 'scores', 'masks')]

    bboxes, scores, masks = differences(None)
    assert bboxes < 1e-3 and scores < 1e-4 and masks == 0
    assert differences(3)[1] > 1e-3  # with other levels the test would fail


def test_the_tool_shows_that_it_starts_as_the_old_one(old, tmp_path, capsys):
    cfg, model = old('Standard')
    cfg.optim_wrapper = ConfigDict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
    for branch in ('bbox', 'mask'):  # as in most configs of MMDetection
        cfg.model.roi_head[f'{branch}_roi_extractor'].roi_layer.sampling_ratio = 0
    cfg.dump(tmp_path / 'old.py')
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'old.pth')
    words = ['--roi-head', '--grow', '--level-fusion', 'sum', '--verify']
    files = ('--checkpoint', tmp_path / 'old.pth', '--out-checkpoint', tmp_path / 'new.pth')
    run_tool('swap_neck', tmp_path / 'old.py', *words, *files, '--out', tmp_path / 'new.py')
    printed = capsys.readouterr().out
    rows = re.findall(r'^(\S+) +[\d x-]+?  +([\d.e-]+)(?: of the pixels)?$', printed, re.MULTILINE)
    assert len(rows) > 15 and {'neck[4]', 'pred_instances.bboxes', 'pred_instances.masks'} <= {name for name, _ in rows}
    assert all(float(difference) < 1e-3 for _, difference in rows)
    new = Config.fromfile(tmp_path / 'new.py')
    assert new.model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 0
    assert new.model.roi_head.mask_head.level_gate and new.load_from == str(tmp_path / 'new.pth')
    MODELS.build(new.model).load_state_dict(torch.load(tmp_path / 'new.pth')['state_dict'], strict=True)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(roi_head=True, grow=True, level_fusion='mean'), r"level_fusion='mean' must be one of \('max', 'sum'\)"),
        (dict(roi_head=True, warm_start=True, level_fusion='sum'), "level_fusion='sum' needs grow=True"),
        (dict(grow=True, level_fusion='sum'), 'and a swap of the RoI head'),
    ],
)
def test_a_fusion_that_would_start_elsewhere_is_refused(old, settings, message):
    with pytest.raises(ConfigError, match=message):
        swap_config(old('Standard')[0], **settings)


def losses_of(model):
    torch.manual_seed(0)
    batch = demo_mm_inputs(2, [[3, 96, 128]] * 2, num_items=[4, 4], num_classes=3, with_mask=True)
    batch = model.data_preprocessor(batch, True)
    return model.parse_losses(model.loss(batch['inputs'], batch['data_samples']))[0]


@pytest.mark.parametrize('level_fusion', ['max', 'sum'])
@pytest.mark.parametrize('kind', CONFIGS)
def test_a_grown_model_trains(old, kind, level_fusion):
    """Every parameter gets a finite gradient, and gates and new layers one that is not zero."""
    cfg, model = old(kind)
    cfg.optim_wrapper = ConfigDict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.001, weight_decay=0.1))
    new_cfg = swap_config(cfg, roi_head=True, grow=True, level_fusion=level_fusion)
    checkpoint, _ = swap_checkpoint(model.state_dict(), cfg, new_cfg)
    grown = MODELS.build(new_cfg.model)
    grown.load_state_dict(checkpoint['state_dict'], strict=True)
    grown.train()
    wrapper = build_optim_wrapper(grown, new_cfg.optim_wrapper)
    names = {id(parameter): name for name, parameter in grown.named_parameters()}
    groups = {names[id(parameter)]: group for group in wrapper.optimizer.param_groups for parameter in group['params']}
    gates = [name for name in groups if name.endswith('_gates')]
    assert len(gates) == NUM_GATES[kind]
    for name, group in groups.items():
        expected = (0.03, 0.0) if name in gates else (0.001, 0.1)
        assert (group['lr'], group['weight_decay']) == pytest.approx(expected), name
    for _ in range(2):
        wrapper.update_params(losses_of(grown))
    # the gradients of the second step are gone with it: one more, without an update
    losses_of(grown).backward()
    for name, parameter in grown.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            if name in gates:
                assert parameter.detach().abs().sum() > 0 and parameter.grad.abs().sum() > 0, name
            elif IS_NEW.search(name):
                assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    'key, wins',
    [
        ('roi_head.bbox_head', True),
        ('shared_fcs.0', True),
        ('mask_head.convs.0', True),
        ('shared_fcs.0.level', True),
        ('backbone.layer4.0', False),
        ('neck', False),
        ('rpn_head.rpn_conv', False),
    ],
)
def test_a_longer_key_of_the_user_wins_over_gates_and_is_named(old, key, wins):
    cfg, _ = old('Standard')
    paramwise = dict(custom_keys={key: dict(lr_mult=0.5)})
    cfg.optim_wrapper = ConfigDict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.1), paramwise_cfg=paramwise
    )
    swap = plan_swap(cfg, SwapOptions(roi_head=True, grow=True))
    words = f'custom_keys.{key} {"may take in" if wins else "leaves out"} gates and layers behind them, because'
    assert any(words in note for note in swap.notes) == (wins or key == 'neck')
    model = MODELS.build(swap.config.model)
    wrapper = build_optim_wrapper(model, swap.config.optim_wrapper)
    rates = {id(parameter): group['lr'] for group in wrapper.optimizer.param_groups for parameter in group['params']}
    lrs = {name: rates[id(parameter)] for name, parameter in model.named_parameters() if name.endswith('_gates')}
    expected = {name: 0.0005 if key in name and wins else 0.015 for name in lrs}
    assert len(lrs) == 3 and lrs == pytest.approx(expected)


def test_averaged_weights_grow_too(old):
    cfg, model = old('Standard')
    averaged = {f'module.{name}': value for name, value in model.state_dict().items()}
    new_cfg = swap_config(cfg, roi_head=True, grow=True)
    checkpoint, _ = swap_checkpoint(
        dict(state_dict=model.state_dict(), ema_state_dict=dict(averaged, steps=torch.tensor(3))), cfg, new_cfg
    )
    state = checkpoint['state_dict']
    assert {name[len('module.') :] for name in checkpoint['ema_state_dict'] if name != 'steps'} == set(state)
    for name in state:
        torch.testing.assert_close(checkpoint['ema_state_dict'][f'module.{name}'], state[name], rtol=0, atol=0)


def test_another_sampling_is_said_to_change_the_start(zoo_config):
    """Without a request the adaptive sampling of the config stays, and the model starts with the same outputs."""
    cfg = zoo_config(CONFIGS['Standard'])
    changed = plan_swap(cfg, SwapOptions(roi_head=True, grow=True, sampling_ratio=2))
    assert any('without --sampling-ratio they stay' in note for note in changed.notes)
    assert changed.config.model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 2
    kept = plan_swap(cfg, SwapOptions(roi_head=True, grow=True))
    assert not any('--sampling-ratio' in note for note in kept.notes)
    assert kept.config.model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 0
    assert kept.config.model.roi_head.bbox_roi_extractor.own_level_first
    assert kept.config.optim_wrapper.paramwise_cfg.custom_keys.level_gates == dict(lr_mult=30, weight_decay=0.0)


@pytest.mark.parametrize(
    'optimizer, gates, layers',
    [
        (dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4), 30, 1),
        (dict(type='mmengine.SGD', lr=0.02), 30, 1),
        (dict(type=torch.optim.SGD, lr=0.02), 30, 1),
        (dict(type='AdamW', lr=1e-4), 30, 1),
        (dict(type='AdamW', lr=5e-4), 30, 0.3),
        (dict(type='Adam', lr=1.5e-3, weight_decay=0.05), 10, 0.1),
        (dict(type='AdamW', lr=1.0), 1, 1.5e-4),
    ],
    ids=str,
)
@pytest.mark.parametrize('kind, norm_cfg', [('Standard', None), ('Cascade', None), ('Standard', GN)])
def test_learning_rates(old, kind, norm_cfg, optimizer, gates, layers):
    """Of the gates, and of the layers for all levels except a RoI's own; all other parameters keep theirs."""
    cfg, _ = old(kind, norm_cfg)
    cfg.optim_wrapper = ConfigDict(type='OptimWrapper', optimizer=optimizer)
    if 'weight_decay' in optimizer:  # otherwise mmengine refuses it
        cfg.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.0)
    swap = plan_swap(cfg, SwapOptions(roi_head=True, grow=True))
    grown = MODELS.build(swap.config.model)
    groups = build_optim_wrapper(grown, swap.config.optim_wrapper).optimizer.param_groups
    names = {id(parameter): name for name, parameter in grown.named_parameters()}
    counts = Counter()
    for name, group in ((names[id(group['params'][0])], group) for group in groups):
        kind_of = 'gate' if name.endswith('_gates') else 'layer' if re.search(r'\.levels\.[1-3]\.', name) else 'other'
        counts[kind_of] += 1
        expected = optimizer['lr'] * dict(gate=gates, layer=layers, other=1)[kind_of]
        assert group['lr'] == pytest.approx(expected), name
        assert kind_of != 'gate' or group['weight_decay'] == 0
    heads = {'Standard': 2, 'Cascade': 6}[kind]
    assert counts['gate'] == heads + 1 and counts['layer'] >= 3 * 2 * heads and counts['other'] > 60
    words = f'custom_keys gives the gates {gates} times the learning rate and no weight decay'
    assert any(words in note for note in swap.notes)


@pytest.mark.parametrize(
    'rules',
    [
        dict(bias_lr_mult=2.0, bias_decay_mult=0.5, norm_decay_mult=0.25),
        dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
        dict(norm_decay_mult=0.0),
        dict(flat_decay_mult=0.0, bias_decay_mult=0.5),
    ],
    ids=str,
)
@pytest.mark.parametrize('norm_cfg', [None, GN, dict(type='BN')], ids=str)
def test_biases_and_norms_of_layers_behind_gates_have_the_rates_of_others(old, norm_cfg, rules):
    cfg, _ = old('Standard', norm_cfg)
    optimizer = dict(type='AdamW', lr=1.5e-3, weight_decay=0.05)
    cfg.optim_wrapper = ConfigDict(type='OptimWrapper', optimizer=optimizer, paramwise_cfg=rules)
    new = swap_config(cfg, roi_head=True, grow=True)
    grown = MODELS.build(new.model)
    groups = build_optim_wrapper(grown, new.optim_wrapper).optimizer.param_groups
    found = {id(group['params'][0]): (group['lr'], group['weight_decay']) for group in groups}
    rates = {name: found[id(parameter)] for name, parameter in grown.named_parameters() if parameter.requires_grad}
    layers = [name for name in rates if '.0.levels.0.' in name]
    assert len(layers) == (6 if norm_cfg else 4)
    for name in layers:  # the first level has the rates of the config
        lr, decay = rates[name]
        for i in range(1, 4):
            assert rates[name.replace('.levels.0.', f'.levels.{i}.')] == pytest.approx((0.1 * lr, decay)), name
    assert len({rates[name] for name in layers}) > 1 or not norm_cfg and list(rules) == ['norm_decay_mult']


def test_the_user_is_told_what_the_config_does_not_say(zoo_config):
    cfg = zoo_config(CONFIGS['Standard'])
    cfg.optim_wrapper.constructor = 'LearningRateDecayOptimizerConstructor'
    without_lr = zoo_config(CONFIGS['Standard'])
    without_lr.optim_wrapper.optimizer = dict(type='AdamW')
    without_wrapper = zoo_config(CONFIGS['Standard'])
    without_wrapper.pop('optim_wrapper', None)
    for one, reason in (
        (cfg, 'no DefaultOptimWrapperConstructor'),
        (without_lr, 'no optimizer with a learning rate'),
        (without_wrapper, 'no optimizer with a learning rate'),
    ):
        swap = plan_swap(one, SwapOptions(roi_head=True, grow=True))
        assert 'paramwise_cfg' not in swap.config.get('optim_wrapper', {})
        words = f'optim_wrapper has {reason}: give the gates (level_gates, path_gates) up to 30 times the learning rate'
        assert any(note.startswith(words) for note in swap.notes)


def test_the_default_constructor_by_its_class_is_known(zoo_config):
    cfg = zoo_config(CONFIGS['Standard'])
    cfg.optim_wrapper.constructor = DefaultOptimWrapperConstructor
    assert 'level_gates' in swap_config(cfg, roi_head=True, grow=True).optim_wrapper.paramwise_cfg.custom_keys


@pytest.mark.parametrize('fusion', ['sum', 'concat'])
def test_a_neck_grows_alone(zoo_config, fusion):
    cfg = zoo_config('retinanet/retinanet_r18_fpn_1x_coco.py')
    new = swap_config(cfg, grow=True, fusion=fusion)
    assert new.model.neck.path_gate and not new.model.neck.get('warm_start')
    assert new.optim_wrapper.paramwise_cfg.custom_keys.path_gates == dict(lr_mult=30, weight_decay=0.0)
    with pytest.raises(ConfigError, match='grow=True with warm_start=True'):
        swap_config(cfg, grow=True, warm_start=True)


def test_a_pafpn_cannot_grow(zoo_config):
    cfg = zoo_config('pafpn/faster-rcnn_r50_pafpn_1x_coco.py')
    with pytest.raises(SwapError, match='a PAFPN cannot grow'):
        swap_config(cfg, roi_head=True, grow=True)
