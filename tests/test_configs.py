# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Every config in ``configs/``: how it inherits, how large it is, and that it trains and predicts.

Configs are found, not listed. A new one needs its parameter counts in ``tests/data/parameter_counts.json``, which

    python tests/test_configs.py --record

writes anew, and a row in ``docs/configs.md``.
"""

import ast
import copy
import json
import re
import sys
from functools import lru_cache

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import LOOPS, PARAM_SCHEDULERS, init_default_scope
from repository import ROOT

import mmpanet  # noqa: F401  registers the modules
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, VISUALIZERS
from mmdet.testing import demo_mm_inputs

COUNTS = ROOT / 'tests' / 'data' / 'parameter_counts.json'
FILES = sorted((ROOT / 'configs').rglob('*.py'))
CONFIGS = [path for path in FILES if '_base_' not in path.parts]

# Those that `make test` trains a step; the rest of them is slow.
QUICK = {
    'faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco',
    'fcos_r50-caffe_panet_gn-head_1x_coco',
    'mask-rcnn_r18_panet_shapes',
    'mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco',
}


def name_of(path):
    return str(path.relative_to(ROOT / 'configs'))


every_file = pytest.mark.parametrize('path', FILES, ids=name_of)
every_config = pytest.mark.parametrize('path', CONFIGS, ids=name_of)
every_config_the_slow_ones_marked = pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=name_of(path), marks=[] if path.stem in QUICK else pytest.mark.slow) for path in CONFIGS],
)


@pytest.fixture(autouse=True, scope='module')
def metafiles_read_once():
    """mmengine reads all of mmdet's metafiles, 0.4 s of them, for each base of mmdet's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_utils, 'load', lru_cache(config_utils.load))
        yield


load = lru_cache(maxsize=None)(Config.fromfile)  # to be copied before it is changed


# Inheritance


def bases_of(path):
    """What ``_base_`` of a config names, read without running it."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == '_base_':
            bases = ast.literal_eval(statement.value)
            return bases if isinstance(bases, list) else [bases]
    return []


def mmdet_bases(path):
    """The ``mmdet::`` bases of a config and of all that it inherits from."""
    for base in bases_of(path):
        if '::' in base:
            yield base
        else:
            yield from mmdet_bases(path.parent / base)


@every_file
def test_inherits_from_mmdet_once(path):
    """Each ``mmdet::`` base costs 0.4 s, and no one can follow two of them."""
    assert len(list(mmdet_bases(path))) <= 1


@every_file
def test_imports_nothing_itself(path):
    """mmengine 0.10.7 cannot parse an import before ``_base_`` in a virtual environment."""
    assert not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(ast.parse(path.read_text())))


# What a config names


def types_in(cfg):
    """Every ``type`` in a nested config."""
    if isinstance(cfg, dict):
        if isinstance(cfg.get('type'), str):
            yield cfg['type']
        cfg = cfg.values()
    if not isinstance(cfg, str) and hasattr(cfg, '__iter__'):
        for value in cfg:
            yield from types_in(value)


def has_masks(cfg):
    return bool(cfg.model.get('roi_head', {}).get('mask_head'))


def listed(value):
    return value if isinstance(value, list) else [value]


@every_config
def test_names_parts_that_exist(path):
    cfg = load(path)
    assert cfg.default_scope == 'mmdet'
    ours = [MODELS.get(name).__module__.startswith('mmpanet.') for name in types_in(cfg.model) if name in MODELS]
    if any(ours):
        assert cfg.custom_imports == dict(imports=['mmpanet'], allow_failed_imports=False)
    for loop in (cfg.train_cfg, cfg.val_cfg, cfg.test_cfg):
        assert loop.type in LOOPS
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.type in DATASETS
    for metric in listed(cfg.val_evaluator) + listed(cfg.test_evaluator):
        assert metric.type in METRICS
    for hook in cfg.default_hooks.values():
        assert hook.type in HOOKS
    assert cfg.visualizer.type in VISUALIZERS


@pytest.fixture(scope='module')
def run_pipeline(tmp_path_factory):
    """Runs a pipeline, each of those that configs share once, on an image with two objects as a dataset gives it."""
    path = tmp_path_factory.mktemp('image') / 'image.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (400, 500, 3), dtype=np.uint8))
    boxes = [[20, 20, 460, 380], [90, 60, 400, 300]]
    instances = [
        dict(bbox=[x1, y1, x2, y2], bbox_label=0, ignore_flag=0, mask=[[x1, y1, x2, y1, x2, y2, x1, y2]])
        for x1, y1, x2, y2 in boxes
    ]
    image = dict(img_path=str(path), img_id=0, height=400, width=500, instances=instances)
    results = {}

    def run(pipeline):
        key = repr(pipeline)
        if key not in results:
            results[key] = Compose(pipeline)(copy.deepcopy(image))
        return results[key]

    return run


@every_config
def test_pipelines(path, run_pipeline):
    """They run, and hand masks to a model with a mask head."""
    cfg = load(path)
    dataset = cfg.train_dataloader.dataset
    pipelines = [
        dataset.get('dataset', dataset).pipeline,
        cfg.val_dataloader.dataset.pipeline,
        cfg.test_dataloader.dataset.pipeline,
    ]
    for pipeline in pipelines:
        packed = run_pipeline(pipeline)
        sample = packed['data_samples']
        assert packed['inputs'].shape == (3, *sample.img_shape)
        assert ('masks' in sample.gt_instances) == has_masks(cfg)
    assert 'scale_factor' in sample  # to bring predictions back to the image


# Size


def count_parameters(path):
    """All and the trainable parameters of a config's model, none of which is allocated."""
    with torch.device('meta'):
        model = MODELS.build(copy.deepcopy(load(path).model))
    parameters = list(model.parameters())
    return dict(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def record():
    init_default_scope('mmdet')
    counts = {name_of(path): count_parameters(path) for path in CONFIGS}
    lines = [f'  {json.dumps(name)}: {json.dumps(count)}' for name, count in counts.items()]
    COUNTS.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


@pytest.fixture(scope='module')
def recorded():
    return json.loads(COUNTS.read_text())


@every_config
def test_builds_with_as_many_parameters_as_recorded(path, recorded):
    assert count_parameters(path) == recorded.get(name_of(path)), (
        'if this is what you want: python tests/test_configs.py --record'
    )


def test_nothing_else_is_recorded(recorded):
    assert sorted(recorded) == sorted(map(name_of, CONFIGS))


# Documents


def test_docs_list_every_config_with_its_size(recorded):
    rows = re.findall(r'\(\.\./configs/(\S+\.py)\).*\| ([\d.]+) M \|', (ROOT / 'docs' / 'configs.md').read_text())
    assert sorted(rows) == sorted((name, f'{count["parameters"] / 1e6:.1f}') for name, count in recorded.items())


# The ablation


def test_the_last_row_of_the_ablation_is_the_recipe_of_the_paper():
    """Two ways to the same model, data and schedule: row by row, and at once."""
    row = load(ROOT / 'configs/ablation/mask-rcnn_r50_table3-8-hhd_2x_coco.py').to_dict()
    recipe = load(ROOT / 'configs/panet/mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco.py').to_dict()
    # What the rows spell out because earlier ones have it otherwise is the default.
    assert row['model']['roi_head']['bbox_head'].pop('num_levels') == 4
    assert row['model']['roi_head']['mask_head'].pop('num_levels') == 4
    assert row['model']['roi_head']['mask_head'].pop('fc_fusion') == 'sum'
    assert row == recipe


# Alive


def shrink(cfg):
    """The model as it is, with fewer RoIs and without downloads."""
    model = cfg.model
    model.backbone.init_cfg = None
    model.test_cfg.max_per_img = 10
    if 'rpn_head' in model:
        model.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=40)
        model.test_cfg.rpn.update(nms_pre=200, max_per_img=40)
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=10)
        for stage in listed(model.train_cfg.rcnn):
            stage.sampler.num = 32
    else:
        model.test_cfg.score_thr = 0.0
    return model


def initialise(model):
    model.init_weights()
    for module in model.modules():
        # The checkpoint that is left out would keep the random init from deformable convs' offsets, which start at 0.
        if hasattr(module, 'init_offset'):
            module.init_offset()


def num_classes(cfg):
    head = cfg.model.get('roi_head', cfg.model).bbox_head
    return listed(head)[-1].num_classes


def batch(cfg, model, num_items, training):
    last = num_classes(cfg) - 1
    data = demo_mm_inputs(
        2,
        [[3, 97, 128], [3, 128, 110]],
        num_items=list(num_items),
        num_classes=max(2, last + 1),  # mmdet draws labels from 1 on
        with_mask=has_masks(cfg),
    )
    for sample in data['data_samples']:
        sample.gt_instances.labels.clamp_(max=last)
    return model.data_preprocessor(data, training)


def build_optimizer(cfg, model):
    """The config's own optimizer at the learning rate of its first iteration."""
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for scheduler in cfg.param_scheduler:
        PARAM_SCHEDULERS.build(scheduler, default_args=dict(optimizer=optim_wrapper, epoch_length=100))
    return optim_wrapper


@pytest.fixture(scope='module')
def seen_alive():
    """Models and optimizers that passed: 1x and 2x, for instance, differ in neither."""
    return set()


@every_config_the_slow_ones_marked
def test_trains_and_predicts(path, seen_alive):
    """A step with objects, one without, and a prediction."""
    cfg = copy.deepcopy(load(path))
    kind = repr((shrink(cfg), cfg.optim_wrapper))
    if kind in seen_alive:
        return
    model = MODELS.build(cfg.model)
    initialise(model)
    model.train()
    optim_wrapper = build_optimizer(cfg, model)
    for num_items in [(3, 2), (0, 0)]:
        losses = model(**batch(cfg, model, num_items, True), mode='loss')
        loss, _ = model.parse_losses(losses)
        assert torch.isfinite(loss), (num_items, losses)
        optim_wrapper.backward(loss)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, (num_items, name)
                assert torch.isfinite(parameter.grad).all(), (num_items, name)
        optim_wrapper.step()
        optim_wrapper.zero_grad()

    model.eval()
    with torch.no_grad():
        results = model(**batch(cfg, model, (3, 2), False), mode='predict')
    for result, shape in zip(results, [(97, 128), (128, 110)]):
        found = result.pred_instances
        assert len(found) > 0
        assert torch.isfinite(found.bboxes).all() and torch.isfinite(found.scores).all()
        if has_masks(cfg):
            assert found.masks.shape == (len(found), *shape)
    seen_alive.add(kind)


if __name__ == '__main__':
    if sys.argv[1:] != ['--record']:
        sys.exit('usage: python tests/test_configs.py --record')
    record()
