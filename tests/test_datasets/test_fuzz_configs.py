# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Good configs, spoiled at random: what the checks let pass is read as it says, and what they refuse is named."""

import copy
import json
import re
from pathlib import Path

import pytest
from coco_data import CLASSES, make_coco, write_coco
from fuzzing import PROFILES, places, quiet_folder, spoiled
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, METRICS
from mmpanet.datasets.checks import check_datasets, find_datasets, unset_faults
from mmpanet.engine.run_config import check_run_config, check_test_time_augmentation, use_amp, use_auto_scale_lr
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError, MMPanetError


def dataset_config():
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    return dict(
        type='CocoDataset',
        data_root='',
        ann_file='train.json',
        metainfo=dict(classes=list(CLASSES)),
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=pipeline,
        test_mode=False,
    )


@pytest.mark.parametrize('profile', PROFILES)
def test_datasets_of_configs(profile, tmp_path, monkeypatch):
    write_coco(tmp_path, make_coco(2))
    monkeypatch.chdir(tmp_path)
    heads = dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))

    def check(node):
        cfg = Config(
            dict(model=dict(roi_head=copy.deepcopy(heads)), train_dataloader=dict(dataset=copy.deepcopy(node)))
        )
        with quiet_folder():
            try:
                check_datasets(cfg, 'train')
            except MMPanetError as error:
                for fault in error.faults:
                    assert re.match(r'(train_dataloader|model)\b|.*train\.json: |.*: no such annotation file', fault), (
                        fault
                    )
                    assert '\n' not in fault, fault
                return
            if not find_datasets(cfg, 'train'):
                return  # not a dataset that is read in COCO format from a file
            wanted = {key: value for key, value in node.items() if key not in ('type', 'pipeline')}
            dataset = CocoDataset(pipeline=[], **wanted)
            labels = [one['bbox_label'] for i in range(len(dataset)) for one in dataset.get_data_info(i)['instances']]
            assert sorted(labels) == [0, 0, 1, 1]

    profile(given(node=spoiled(dataset_config()))(check))()


# Whole config files

OLD_KEYS = dict(
    data=dict(samples_per_gpu=2),
    runner=dict(type='EpochBasedRunner', max_epochs=1),
    optimizer=dict(type='SGD', lr=0.1),
    lr_config=dict(policy='step'),
    total_epochs=12,
    img_prefix='images/',
    classes=['bolt', 'nut'],
    samples_per_gpu=2,
    img_norm_cfg=dict(mean=[0, 0, 0]),
    pipeline=[dict(type='Collect', keys=['img'])],
    file_client_args=dict(backend='disk'),
)


def whole_config():
    """A config that trains and tests; its train data in a wrapper, its validation data plain."""
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    plain = dict(dataset_config(), ann_file='val.json', test_mode=True)
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[dataset_config()]))
    evaluator = dict(type='CocoMetric', ann_file='val.json', metric=['bbox', 'segm'])
    heads = dict(
        bbox_head=[dict(type='Shared2FCBBoxHead', num_classes=2)], mask_head=dict(type='FCNMaskHead', num_classes=2)
    )
    return dict(
        default_scope='mmdet',
        model=dict(type='MaskRCNN', rpn_head=dict(num_classes=1), roi_head=dict(type='StandardRoIHead', **heads)),
        train_dataloader=dict(loader, dataset=wrapped),
        val_dataloader=dict(loader, dataset=plain),
        test_dataloader=dict(loader, dataset=plain),
        val_evaluator=evaluator,
        test_evaluator=[evaluator],
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        auto_scale_lr=dict(base_batch_size=16),
    )


@st.composite
def spoiled_configs(draw):
    config = draw(spoiled(whole_config()))
    for key in draw(st.lists(st.sampled_from(sorted(OLD_KEYS)), max_size=2)):
        node = config
        for name in draw(st.sampled_from([(), *places(config)])):
            node = node[name]
        if isinstance(node, dict):
            node[key] = copy.deepcopy(OLD_KEYS[key])
    return config


OF_A_KEY = re.compile(r'(config config.json: |--|\w+_dataloader\b|\w+_evaluator\b|model\b|data )')
OF_A_FILE = re.compile(
    '.*: (annotations|images?|its images|categories|classes|no such annotation file|no image is left|not a JSON file|'
    'holds|has no list|cannot be read)'
)


def refusal_of(action, *arguments):
    """The lines of a refusal; None without one."""
    try:
        action(*arguments)
    except MMPanetError as error:
        return getattr(error, 'faults', None) or [str(error)]
    return None


@pytest.mark.parametrize('profile', PROFILES)
def test_whole_configs(profile, tmp_path, monkeypatch):
    for name in ('train.json', 'val.json'):
        write_coco(tmp_path, make_coco(2), name)
    monkeypatch.chdir(tmp_path)
    profile(given(config=spoiled_configs(), amp=st.booleans())(whole_config_is_right_or_refused))()


def whole_config_is_right_or_refused(config, amp):
    Path('config.json').write_text(json.dumps(config))
    with quiet_folder():
        try:
            cfg = load_config('config.json')
        except ConfigError as error:
            assert str(error).startswith('config config.json: ') and '\n' not in str(error)
            return
        refused = []
        for task in ('train', 'test'):
            lines = refusal_of(check_run_config, cfg, task) or []
            if not lines and task == 'train':
                lines = refusal_of(use_auto_scale_lr, copy.deepcopy(cfg)) or []
                lines += (refusal_of(use_amp, copy.deepcopy(cfg)) or []) if amp else []
            if not lines and task == 'test':
                # Under a misspelled key too: such a model cannot be built.
                predicts_masks = any(
                    isinstance(part, dict) and bool(part.get('mask_head')) for part in cfg.model.values()
                )
                assert bool(refusal_of(check_test_time_augmentation, cfg)) == predicts_masks
            refused += lines
        refused += refusal_of(check_datasets, cfg, 'train', 'val', 'test') or []
        unset = [fault for split in ('train', 'val', 'test') for fault in unset_faults(cfg, split)]
        for line in [*refused, *unset]:
            assert OF_A_KEY.match(line) or OF_A_FILE.match(line), line
            assert '\n' not in line and len(line) < 2000, line
        if not refused and not unset:
            trains_and_evaluates(cfg)


def trains_and_evaluates(cfg):
    """mmengine builds what passes, and the objects of the two images are all there, in each split."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        node = copy.deepcopy(loader.dataset)
        without_pipelines(node)
        dataset = DATASETS.build(node)
        if find_datasets(cfg, split):
            infos = [dataset.get_data_info(i) for i in range(len(dataset))]
            assert sum(len(info['instances']) for info in infos) % 4 == 0
            assert {one['bbox_label'] for info in infos for one in info['instances']} == {0, 1}
        if split != 'train' and cfg.get(f'{split}_evaluator') is not None:
            evaluator = cfg[f'{split}_evaluator']
            for metric in evaluator if isinstance(evaluator, list) else [evaluator]:
                METRICS.build(metric)


def without_pipelines(node):
    """Drop the pipelines, whose steps are no business of the checks."""
    if isinstance(node, dict):
        if 'pipeline' in node:
            node['pipeline'] = []
        for value in node.values():
            without_pipelines(value)
    elif isinstance(node, list):
        for value in node:
            without_pipelines(value)
