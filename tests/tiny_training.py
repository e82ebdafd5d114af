# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The training of `configs/shapes`, made so small that a run takes a second, in the hands of several tests."""

import importlib.util
import multiprocessing
import os
import sys
from multiprocessing import forkserver
from unittest import mock

import torch
from mmengine.config import Config
from repository import ROOT, tool_path

from mmpanet.datasets.shapes import ShapesConfig, make_shapes

BASE = ROOT / 'configs' / 'shapes' / 'mask-rcnn_r18_panet_shapes.py'
CONFIG = """
_base_ = {base!r}
norm_cfg = dict(type='GN', num_groups=4, requires_grad=True)
model = dict(
    backbone=dict(base_channels=8, norm_cfg=dict(_delete_=True, type='BN')),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=32, norm_cfg=norm_cfg),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(in_channels=16, conv_out_channels=16, norm_cfg=norm_cfg)))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + 'val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=1000)
# Its warm-up is longer than these trainings.
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, milestones=[8], gamma=0.5)]
default_hooks = dict(logger=dict(interval=1), visualization=dict(draw=False))
randomness = dict(seed=0, deterministic=True)
log_level = 'ERROR'
"""

# What is drawn at random in a step: flips, and the anchors and RoIs that the losses are taken of.
NOTHING_AT_RANDOM = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]
train_dataloader['dataset']['pipeline'] = train_pipeline
model['train_cfg'] = dict(
    rpn=dict(sampler=dict(num=10000)), rcnn=dict(sampler=dict(num=10000)))
"""


def fresh_processes():
    """A context whose processes start from one that has imported everything and computed nothing.

    A fork of the process that tests would take its OpenMP threads for its own, and wait for them. Where there is a
    GPU, each imports everything itself, since a fork cannot use a GPU that its parent has asked for.
    """
    if torch.cuda.is_available():
        return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['quick_processes'])
    # Python up to 3.12 does not hand on sys.path, and then leaves out what it cannot import, without a word.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path))):
        forkserver.ensure_running()
    return context


def make_data(folder, num_train=8, num_val=4, **settings):
    """The generated set, with 64 x 64 pixels per image; the folder, as configs write it."""
    make_shapes(
        folder,
        ShapesConfig(
            **{
                **dict(
                    num_train=num_train,
                    num_val=num_val,
                    image_size=(64, 64),
                    area=(60, 900),
                    num_objects=(2, 5),
                    empty_fraction=0.2,
                ),
                **settings,
            }
        ),
    )
    return f'{folder}/'


def write_config(path, data, more='', base=BASE):
    path.write_text(CONFIG.format(base=str(base), data=data) + more)
    return path


def tiny_config(path, data, more=''):
    return Config.fromfile(write_config(path, data, more))


def load_tool(name):
    """The module of the command line ``tools/<name>.py``."""
    spec = importlib.util.spec_from_file_location(f'tool_{name}', tool_path(name))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_tool(name, *words):
    """The command line ``python tools/<name>.py <words>``, in this process."""
    module = load_tool(name)
    before = sys.argv, dict(os.environ)
    sys.argv = [f'{name}.py', *map(str, words)]
    try:
        return module.main()
    finally:
        sys.argv = before[0]
        os.environ.clear()
        os.environ.update(before[1])
