# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Every config in ``configs/``: how it inherits, how large it is, what it differs in, and that it trains and predicts.

Configs are found, not listed. After a change of a config, ``python .dev_scripts/config_index.py`` writes anew what is
derived from them: metafiles, the tables of ``docs/configs.md``, and ``tests/data/parameter_counts.json``.
"""

import argparse
import ast
import copy
import json
import re
import shlex
from functools import lru_cache

import config_index
import cv2
import numpy as np
import pytest
import torch
from config_index import FILES, FOLDER, PATHS, count_parameters, name_of
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import LOOPS, PARAM_SCHEDULERS

import mmpanet  # noqa: F401  registers the modules
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, VISUALIZERS
from mmdet.testing import demo_mm_inputs
from mmpanet.engine.run_arguments import add_run_arguments
from mmpanet.utils.configs import config_path

# Those that `make test` trains for a step. The others are slow.
QUICK = {
    'faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco',
    'fcos_r50-caffe_panet_gn-head_1x_coco',
    'mask-rcnn_r18_panet_shapes',
    'mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco',
}

every_file = pytest.mark.parametrize('path', FILES, ids=name_of)
every_config = pytest.mark.parametrize('path', PATHS, ids=name_of)
every_config_the_slow_ones_marked = pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=name_of(path), marks=[] if path.stem in QUICK else pytest.mark.slow) for path in PATHS],
)


load = lru_cache(maxsize=None)(Config.fromfile)  # to be copied before it is changed


# Inheritance


def bases_of(path):
    """What ``_base_`` of a config names, read without running it."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and statement.targets[0].id == '_base_':
            bases = ast.literal_eval(statement.value)
            return bases if isinstance(bases, list) else [bases]
    return []


def depth_of(path):
    """The number of files of ours from a config to its last base."""
    return 1 + max((depth_of(path.parent / base) for base in bases_of(path) if '::' not in base), default=0)


@every_config
def test_inherits_through_three_files_at_most(path):
    assert depth_of(path) <= 3


@every_file
def test_imports_nothing_itself(path):
    """mmengine 0.10.7 cannot parse an import before ``_base_`` in a virtual environment."""
    assert not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(ast.parse(path.read_text())))


def test_every_base_is_used():
    used = {(path.parent / base).resolve() for path in FILES for base in bases_of(path) if '::' not in base}
    assert used >= set(FILES) - set(PATHS)


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


# What is derived from the configs

WRITE_ANEW = 'if this is what you want: python .dev_scripts/config_index.py'


@pytest.fixture(scope='module')
def recorded():
    return json.loads(config_index.COUNTS.read_text())


@pytest.fixture(scope='module')
def configs():
    return {path: load(path) for path in PATHS}


@every_config
def test_builds_with_as_many_parameters_as_recorded(path, recorded):
    assert count_parameters(load(path)) == recorded.get(name_of(path)), WRITE_ANEW


def test_nothing_else_is_recorded(recorded):
    assert config_index.counts_text(recorded) == config_index.COUNTS.read_text(), WRITE_ANEW
    assert list(recorded) == [name_of(path) for path in PATHS], WRITE_ANEW


@pytest.fixture(scope='module')
def results():
    return config_index.read_results()


def test_metafiles(configs, results):
    texts = config_index.metafiles(configs, results)
    assert sorted(texts) == sorted(FOLDER.rglob('metafile.yml')), WRITE_ANEW
    for path, text in texts.items():
        assert path.read_text() == text, WRITE_ANEW


def test_results_are_those_of_the_runs(results):
    """Mean and spread of a row, by a second way from the file of the runs to the page."""
    name = 'mask-rcnn_r18_fpn_12e_dsb2018'
    runs = [json.loads(line) for line in (FOLDER.parent / 'docs/results/dsb2018.jsonl').read_text().splitlines()]
    masks = [100 * run['metrics']['segm_mAP'] for run in runs if run['name'] == name and not run.get('options')]
    assert len(masks) == len(results[name].seeds) == 3
    expected = f'{np.mean(masks):.1f} ± {np.std(masks, ddof=1):.1f}'
    [row] = [line for line in config_index.PAGE.read_text().splitlines() if line.startswith(f'| [{name}]')]
    assert row.endswith(f' {expected} | 3 |')


def test_tables_of_the_docs(configs, recorded, results):
    text = config_index.PAGE.read_text()
    assert config_index.page(text, configs, recorded, results) == text, WRITE_ANEW
    tables = ''.join(re.findall('<!-- configs: .*?<!-- end of configs -->', text, re.DOTALL))
    listed = re.findall(r'\(\.\./configs/(\S+\.py)\)', tables)
    assert sorted(listed) == sorted(map(name_of, PATHS)), 'each config has one row in one table'


def options_in_the_docs():
    """The configs and options in the table of other backbones, heads and schedules."""
    section = config_index.PAGE.read_text().partition('## Other backbones, heads and schedules')[2]
    for what, names, options in re.findall(r'^\| (.*?) \| (.*?) \| `(.*)` \|$', section, re.MULTILINE):
        for name in re.findall(r'\(\.\./configs/(\S+?\.py)\)', names):
            yield pytest.param(FOLDER / name, options, id=f'{what}-{name}')


@pytest.mark.parametrize('path, options', list(options_in_the_docs()))
def test_options_in_the_docs(path, options):
    """They are read as a shell and the tools read them, change each of the settings that they name, and build."""
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    overrides = parser.parse_args(['--cfg-options', *shlex.split(options)]).cfg_options
    cfg = copy.deepcopy(load(path))
    cfg.merge_from_dict(overrides)
    changed = set(differences(load(path).to_dict(), cfg.to_dict()))
    for key in overrides:
        assert any(f'{name}.'.startswith(f'{key}.') or key.startswith(f'{name}.') for name in changed), key
    assert count_parameters(cfg)['parameters'] > 0


# What a config differs in


def differences(first, second, key=''):
    """The dotted keys of values that differ between two configs."""
    if isinstance(first, dict) and isinstance(second, dict):
        pairs = {name: (first.get(name), second.get(name)) for name in {*first, *second}}
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = dict(enumerate(zip(first, second)))
    else:
        if first != second:
            yield key
        return
    for name, (one, other) in pairs.items():
        if name != '_scope_':  # mmengine notes there which base a dictionary comes from
            yield from differences(one, other, f'{key}.{name}' if key else str(name))


TYPES = {
    'model.neck.type',
    'model.roi_head.type',
    'model.roi_head.bbox_roi_extractor.type',
    'model.roi_head.bbox_head.type',
    'model.roi_head.mask_roi_extractor.type',
    'model.roi_head.mask_head.type',
}
SAMPLING = {
    'model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio',
    'model.roi_head.mask_roi_extractor.roi_layer.sampling_ratio',
}


@pytest.mark.parametrize('path', sorted(FOLDER.glob('panet/*_panet_*.py')), ids=name_of)
def test_a_line_beside_mmdets_zoo_differs_in_its_parts_alone(path):
    theirs = load(config_path(f'mmdet::{path.stem.replace("_panet_", "_fpn_")}')).to_dict()
    changed = {re.sub(r'bbox_head\.\d\.', 'bbox_head.', key) for key in differences(theirs, load(path).to_dict())}
    assert 'model.neck.type' in changed
    assert changed <= {'custom_imports', *TYPES, *SAMPLING, 'max_epochs'}  # the last one is a variable of theirs


MASK, DETECTOR, NUCLEI, PRETRAINED, CAR_PARTS, SCRATCH = (
    'ablation/mask-rcnn_r50_{}_2x_coco',
    'ablation/faster-rcnn_r50_{}_1x_coco',
    'dsb2018/ablation/mask-rcnn_r18_{}_dsb2018',
    'dsb2018/ablation/mask-rcnn_r50-half_{}_dsb2018',
    'carparts/mask-rcnn_r50-half_{}_carparts',
    'carparts/mask-rcnn_r18_{}_carparts',
)
SCHEDULE = ['max_epochs', 'train_cfg', 'param_scheduler']
LOADERS = ['train_dataloader.dataset.pipeline', 'val_dataloader.dataset.pipeline', 'test_dataloader.dataset.pipeline']
BN = ['custom_imports', 'norm_cfg', 'model.backbone', 'model.neck.norm_cfg', 'model.roi_head.bbox_head']
LEVEL_FUSION = ['model.roi_head.bbox_head.level_fusion', 'model.roi_head.mask_head.level_fusion']
BEFORE = ['model.roi_head.bbox_head.fuse_before_first_layer', 'model.roi_head.mask_head.fuse_before_first_layer']
FC = 'model.roi_head.mask_head.fc_'
# The row that a row is compared to, the row, and what it changes.
ROWS = [
    (MASK, 'table3-1-rbl', 'table3-2-mst', ['train_pipeline', 'train_dataloader.dataset.pipeline']),
    (MASK, 'table3-2-mst', 'table3-3-mbn', [*BN, 'model.roi_head.mask_head.norm_cfg']),
    (MASK, 'table3-3-mbn', 'table3-4-bpa', ['model.neck.type']),
    (MASK, 'table3-3-mbn', 'table3-5-afp', ['model.roi_head']),
    (MASK, 'table3-5-afp', 'table3-6-bpa-afp', ['model.neck.type']),
    (MASK, 'table3-6-bpa-afp', 'table3-7-ff', [f'{FC}fusion']),
    (MASK, 'table3-5-afp', 'table4-after-sum', LEVEL_FUSION),
    (MASK, 'table3-5-afp', 'table4-before-max', BEFORE),
    (MASK, 'table3-7-ff', 'table5-conv2', [f'{FC}branch_start']),
    (MASK, 'table3-7-ff', 'table5-conv4', [f'{FC}branch_start']),
    (MASK, 'table3-7-ff', 'table5-max', [f'{FC}fusion', f'{FC}relu']),
    (MASK, 'table3-7-ff', 'table5-product', [f'{FC}fusion', f'{FC}relu']),
    (DETECTOR, 'table3-1-rbl', 'table3-3-mbn', BN),
    (DETECTOR, 'table3-3-mbn', 'table3-4-bpa', ['model.neck.type']),
    (DETECTOR, 'table3-3-mbn', 'table3-5-afp', ['model.roi_head']),
    (DETECTOR, 'table3-5-afp', 'table3-6-bpa-afp', ['model.neck.type']),
    (DETECTOR, 'table3-6-bpa-afp', 'table3-8-hhd', ['model.roi_head.bbox_head']),
    (DETECTOR, 'table3-5-afp', 'table4-after-sum', LEVEL_FUSION[:1]),
    (DETECTOR, 'table3-5-afp', 'table4-before-max', BEFORE[:1]),
    (NUCLEI, 'fpn_12e', 'pafpn_12e', ['model.neck.type']),
    (NUCLEI, 'fpn_12e', 'bpa_12e', ['model.neck.type']),
    (NUCLEI, 'fpn_12e', 'afp_12e', ['model.roi_head']),
    (NUCLEI, 'afp_12e', 'bpa-afp_12e', ['model.neck.type']),
    (NUCLEI, 'bpa-afp_12e', 'bpa-afp-ff_12e', [f'{FC}fusion']),
    (NUCLEI, 'bpa-afp-ff_12e', 'panet_12e', ['model.roi_head.bbox_head']),
    (NUCLEI, 'panet_12e', 'panet-level-sum_12e', LEVEL_FUSION),
    (NUCLEI, 'panet_12e', 'panet-neck-concat_12e', ['model.neck.fusion']),
    (NUCLEI, 'panet_12e', 'panet-neck-weighted_12e', ['model.neck.fusion']),
    *[
        (NUCLEI, f'{row}_12e', f'{row}_{more}', SCHEDULE)
        for row in ('fpn', 'panet-level-sum')
        for more in ('24e', '48e')
    ],
    (PRETRAINED, 'fpn_12e', 'panet_12e', ['model.neck.type', 'model.roi_head']),
    (PRETRAINED, 'panet_12e', 'panet-level-sum_12e', LEVEL_FUSION),
    (PRETRAINED, 'bpa-afp-ff-level-sum_12e', 'panet-level-sum_12e', ['model.roi_head.bbox_head']),
    (CAR_PARTS, 'fpn_12e', 'bpa_12e', ['model.neck.type']),
    (CAR_PARTS, 'fpn_12e', 'afp-level-sum_12e', ['model.roi_head']),
    (CAR_PARTS, 'afp-level-sum_12e', 'bpa-afp-level-sum_12e', ['model.neck.type']),
    (CAR_PARTS, 'bpa-afp-level-sum_12e', 'bpa-afp-ff-level-sum_12e', [f'{FC}fusion']),
    (CAR_PARTS, 'bpa-afp-ff-level-sum_12e', 'panet-level-sum_12e', ['model.roi_head.bbox_head']),
    *[
        (CAR_PARTS, f'{row}_12e', f'{row}-level-sum_12e', LEVEL_FUSION)
        for row in ('afp', 'bpa-afp', 'bpa-afp-ff', 'panet')
    ],
    (CAR_PARTS, 'fpn_12e', 'pafpn_12e', ['model.neck.type']),
    (CAR_PARTS, 'panet-level-sum_12e', 'panet-level-sum-fc-norm_12e', ['model.roi_head.bbox_head.fc_norm_cfg']),
    (SCRATCH, 'fpn_24e', 'pafpn_24e', ['model.neck.type']),
    (SCRATCH, 'fpn_24e', 'bpa_24e', ['model.neck.type']),
    (SCRATCH, 'fpn_24e', 'afp_24e', ['model.roi_head']),
    (SCRATCH, 'afp_24e', 'bpa-afp_24e', ['model.neck.type']),
    (SCRATCH, 'bpa-afp_24e', 'bpa-afp-ff_24e', [f'{FC}fusion']),
    (SCRATCH, 'bpa-afp-ff_24e', 'panet_24e', ['model.roi_head.bbox_head']),
    (SCRATCH, 'panet_24e', 'panet-level-sum_24e', LEVEL_FUSION),
    *[(NUCLEI, f'{row}_12e', f'{row}_zoom-12e', LOADERS) for row in ('fpn', 'panet-level-sum')],
]
ABLATIONS = {'ablation', 'carparts'}


def assert_differ_in(first, second, expected):
    """Both configs differ in something below each of the expected keys, and in nothing else."""
    changed = set(differences(*(load(FOLDER / f'{name}.py').to_dict() for name in (first, second))))
    below = {key: {name for name in changed if name.startswith(key)} for key in expected}
    assert all(below.values()) and set().union(*below.values()) == changed


@pytest.mark.parametrize('folder, above, row, expected', ROWS)
def test_a_row_of_an_ablation_changes_one_thing(folder, above, row, expected):
    assert_differ_in(folder.format(above), folder.format(row), expected)


def test_every_row_of_an_ablation_is_compared():
    rows = {folder.format(name) for folder, *names, _ in ROWS for name in names}
    # tests/test_swap compares the last one
    rows.add(NUCLEI.format('panet-swapped_zoom-12e'))
    assert rows == {name_of(path)[:-3] for path in PATHS if ABLATIONS.intersection(path.parts)}


def test_the_recipe_of_the_paper_is_the_last_row_of_the_ablation():
    """``num_levels`` and ``fc_fusion`` are defaults that the rows spell out."""
    head = 'model.roi_head.mask_head'
    expected = ['model.roi_head.bbox_head', f'{head}.num_levels', f'{head}.fc_fusion']
    recipe = 'panet/mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco'
    assert_differ_in(MASK.format('table3-7-ff'), recipe, expected)
    defaults = load(FOLDER / f'{MASK.format("table3-7-ff")}.py').model.roi_head.mask_head
    assert (defaults.num_levels, defaults.fc_fusion) == (4, 'sum')


@pytest.mark.parametrize('row', ['fpn_12e', 'panet_12e', 'panet-level-sum_12e'])
def test_a_pretrained_row_on_nuclei_differs_in_its_backbone(row):
    backbone = ['model.backbone', 'model.data_preprocessor', 'model.neck.in_channels', 'optim_wrapper.paramwise_cfg']
    assert_differ_in(NUCLEI.format(row), PRETRAINED.format(row), backbone)


def test_the_ablation_on_nuclei_has_the_settings_of_the_small_model():
    expected = ['custom_imports', 'model.roi_head.bbox_head', *SCHEDULE, 'default_hooks.visualization.draw']
    assert_differ_in('dsb2018/mask-rcnn_r18_fpn_dsb2018', NUCLEI.format('fpn_12e'), expected)


# Alive


def shrink(cfg):
    """The model as it is, with fewer RoIs and without downloads."""
    model = cfg.model
    model.backbone.init_cfg = None
    model.test_cfg.max_per_img = 4
    if 'rpn_head' in model:
        model.train_cfg.rpn_proposal.update(nms_pre=200, max_per_img=16)
        model.test_cfg.rpn.update(nms_pre=200, max_per_img=16)
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=4)
        for stage in listed(model.train_cfg.rcnn):
            stage.sampler.num = 8
    else:
        model.test_cfg.score_thr = 0.0
    return model


def initialize(model):
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
    initialize(model)
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
