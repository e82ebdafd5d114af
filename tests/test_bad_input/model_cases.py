# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Wrong configs of the models: every argument of the parts, and parts that do not go together."""

import copy
from pathlib import Path
from typing import Callable

import torch
from corpus import Action, Case
from mmengine.config import ConfigDict

from mmdet.registry import MODELS
from mmpanet.utils.errors import ConfigError

NECK, POOLING, HEADS, ROI_HEAD = 'Neck', 'Adaptive feature pooling', 'Box and mask heads', 'RoI head'
CHANNELS = [4, 8, 16, 32]


def builds(cfg: dict) -> Callable[[Path], Action]:
    return lambda folder: lambda: MODELS.build(ConfigDict(copy.deepcopy(cfg)))


def neck(**arguments) -> dict:
    return {**dict(type='PANetNeck', in_channels=CHANNELS, out_channels=16, num_outs=5), **arguments}


def neck_on(channels=CHANNELS, **arguments):
    """Run a neck on the maps of a backbone with these channels."""

    def prepare(folder):
        built = MODELS.build(neck(**arguments))
        maps = [torch.zeros(1, c, 32 >> i, 32 >> i) for i, c in enumerate(channels)]
        return lambda: built(maps)

    return prepare


def pooling(**arguments) -> dict:
    return {
        **dict(
            type='AdaptiveFeaturePooling',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
            out_channels=16,
            featmap_strides=[4, 8, 16, 32],
        ),
        **arguments,
    }


def roi_layer(**arguments) -> dict:
    return pooling(roi_layer={**dict(type='RoIAlign', output_size=7, sampling_ratio=2), **arguments})


def pooling_on(channels=16, levels=4, rois=((0, 0.0, 0.0, 9.0, 9.0),), **arguments):
    def prepare(folder):
        built = MODELS.build(pooling(**arguments))
        maps = [torch.zeros(1, channels, 16 >> i, 16 >> i) for i in range(levels)]
        return lambda: built(maps, torch.tensor(rois))

    return prepare


def box_head(**arguments) -> dict:
    return {
        **dict(type='PANetShared2FCBBoxHead', in_channels=16, fc_out_channels=32, roi_feat_size=7, num_classes=3),
        **arguments,
    }


def mask_head(**arguments) -> dict:
    return {
        **dict(type='FCFusionMaskHead', in_channels=16, conv_out_channels=16, roi_feat_size=14, num_classes=3),
        **arguments,
    }


def head_on(cfg: dict, *shape: int):
    def prepare(folder):
        head = MODELS.build(cfg)
        return lambda: head(torch.zeros(*shape))

    return prepare


def roi_head(change: Callable[[dict], object]):
    """Build a RoI head whose config is changed."""
    cfg = dict(
        type='PANetRoIHead',
        bbox_roi_extractor=pooling(),
        bbox_head=box_head(),
        mask_roi_extractor=pooling(roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2)),
        mask_head=mask_head(),
    )
    change(cfg)
    return builds(cfg)


GN7 = dict(type='GN', num_groups=7)

CASES = [
    Case(
        NECK,
        'in_channels is a number',
        builds(neck(in_channels=256)),
        ConfigError,
        ('in_channels', '=256', 'must be a list'),
    ),
    Case(
        NECK,
        'in_channels is empty',
        builds(neck(in_channels=[])),
        ConfigError,
        ('in_channels', r'=\[\]', 'one number for each level'),
    ),
    Case(
        NECK,
        'in_channels holds a name',
        builds(neck(in_channels=[4, '8'])),
        ConfigError,
        ('in_channels', r"\[4, '8'\]", 'numbers above 0'),
    ),
    Case(NECK, 'out_channels is 0', builds(neck(out_channels=0)), ConfigError, ('out_channels', '=0', 'at least 1')),
    Case(
        NECK,
        'out_channels is a string',
        builds(neck(out_channels='256')),
        ConfigError,
        ('out_channels', "='256'", 'a whole number'),
    ),
    Case(
        NECK,
        'num_outs below the number of levels',
        builds(neck(num_outs=3)),
        ConfigError,
        ('num_outs', '=3', 'at least 4'),
    ),
    Case(
        NECK,
        'num_outs asks for extra levels above an end_level',
        builds(neck(num_outs=5, end_level=2)),
        ConfigError,
        ('num_outs', '=5', 'must be 3 .*end_level=2'),
    ),
    Case(
        NECK,
        'start_level above the last level',
        builds(neck(start_level=4)),
        ConfigError,
        ('start_level', '=4', '0 to 3'),
    ),
    Case(NECK, 'start_level is negative', builds(neck(start_level=-1)), ConfigError, ('start_level', '=-1', '0 to 3')),
    Case(
        NECK,
        'end_level above the last level',
        builds(neck(end_level=7)),
        ConfigError,
        ('end_level', '=7', '-1 .* to 3'),
    ),
    Case(
        NECK,
        'end_level below start_level',
        builds(neck(start_level=2, end_level=1, num_outs=1)),
        ConfigError,
        ('end_level', '=1', '2 .start_level. to 3'),
    ),
    Case(
        NECK,
        'end_level counted from the end',
        builds(neck(end_level=-2, num_outs=3)),
        ConfigError,
        ('end_level', '=-2', '-1 .* to 3'),
    ),
    Case(
        NECK,
        'add_extra_convs of an unknown source',
        builds(neck(add_extra_convs='on_last')),
        ConfigError,
        ('add_extra_convs', "='on_last'", "'on_input', 'on_lateral', 'on_output'"),
    ),
    Case(
        NECK,
        'add_extra_convs is a number',
        builds(neck(add_extra_convs=1)),
        ConfigError,
        ('add_extra_convs', '=1', 'False, True'),
    ),
    Case(
        NECK,
        'fusion is unknown',
        builds(neck(fusion='mean')),
        ConfigError,
        ('fusion', "='mean'", "'sum', 'concat', 'weighted'"),
    ),
    Case(
        NECK,
        'norm_cfg is a name',
        builds(neck(norm_cfg='GN')),
        ConfigError,
        ('norm_cfg', "='GN'", "dict.type='BN'.*None"),
    ),
    Case(
        NECK,
        'norm_cfg has groups that do not divide the channels',
        builds(neck(norm_cfg=GN7)),
        ConfigError,
        ('norm_cfg', "'num_groups': 7", 'divides 16 channels'),
    ),
    Case(
        NECK,
        'norm_cfg of an unknown type',
        builds(neck(norm_cfg=dict(type='GroupNorm9'))),
        ConfigError,
        ('norm_cfg', 'GroupNorm9', "'BN', 'SyncBN' or 'GN'"),
    ),
    Case(
        NECK,
        'bottom_up_norm_cfg is a name',
        builds(neck(bottom_up_norm_cfg='GN')),
        ConfigError,
        ('bottom_up_norm_cfg', "='GN'", "None or 'same'"),
    ),
    Case(
        NECK,
        'bottom_up_norm_cfg has no type',
        builds(neck(bottom_up_norm_cfg=dict(num_groups=4))),
        ConfigError,
        ('bottom_up_norm_cfg', "'num_groups': 4", "type='BN'"),
    ),
    Case(
        NECK,
        'bottom_up_bias is a word',
        builds(neck(bottom_up_bias='yes')),
        ConfigError,
        ('bottom_up_bias', "='yes'", "'auto', True or False"),
    ),
    Case(
        NECK,
        'backbone gives fewer levels than in_channels names',
        neck_on(CHANNELS[:3]),
        ConfigError,
        (r'in_channels=\[4, 8, 16, 32\]', 'gave 3', 'names 4 levels.*out_indices'),
    ),
    Case(
        NECK,
        'backbone gives other channels than in_channels names',
        neck_on([4, 8, 16, 64]),
        ConfigError,
        ('in_channels', '64 channels', r'\[4, 8, 16, 32\].*map 3'),
    ),
    Case(
        POOLING,
        'featmap_strides is empty',
        builds(pooling(featmap_strides=[])),
        ConfigError,
        ('featmap_strides', r'=\[\]', 'numbers above 0, one number for each level'),
    ),
    Case(
        POOLING,
        'featmap_strides holds 0',
        builds(pooling(featmap_strides=[4, 0])),
        ConfigError,
        ('featmap_strides', r'=\[4, 0\]', 'numbers above 0'),
    ),
    Case(
        POOLING,
        'featmap_strides is a number',
        builds(pooling(featmap_strides=4)),
        ConfigError,
        ('featmap_strides', '=4', 'must be a list'),
    ),
    Case(
        POOLING,
        'out_channels of the pooling is negative',
        builds(pooling(out_channels=-16)),
        ConfigError,
        ('out_channels', '=-16', 'at least 1'),
    ),
    Case(
        POOLING,
        'roi_layer of an unknown type',
        builds(roi_layer(type='RoIAling')),
        ConfigError,
        ('roi_layer', "'RoIAling'", 'operator of mmcv.ops, such as .*RoIAlign'),
    ),
    Case(
        POOLING,
        'roi_layer is a name',
        builds(pooling(roi_layer='RoIAlign')),
        ConfigError,
        ('roi_layer', "='RoIAlign'", 'must be a dict'),
    ),
    Case(
        POOLING,
        'output_size is 0',
        builds(roi_layer(output_size=0)),
        ConfigError,
        ('roi_layer.output_size', '=0', 'at least 1'),
    ),
    Case(
        POOLING,
        'output_size is missing',
        builds(pooling(roi_layer=dict(type='RoIAlign'))),
        ConfigError,
        ('roi_layer.output_size', '=None', 'a whole number'),
    ),
    Case(
        POOLING,
        'output_size of three numbers',
        builds(roi_layer(output_size=(7, 7, 7))),
        ConfigError,
        ('roi_layer.output_size', r'=\(7, 7, 7\)', 'or two of them'),
    ),
    Case(
        POOLING,
        'sampling_ratio is negative',
        builds(roi_layer(sampling_ratio=-2)),
        ConfigError,
        ('roi_layer.sampling_ratio', '=-2', 'at least 1, or 0'),
    ),
    Case(
        POOLING,
        'backend is unknown',
        builds(pooling(backend='cuda')),
        ConfigError,
        ('backend', "='cuda'", "'auto', 'roi_align', 'embedding_bag'"),
    ),
    Case(
        POOLING,
        'embedding_bag of rotated RoIs without a fixed number of samples',
        builds(
            pooling(
                type='RotatedAdaptiveFeaturePooling',
                roi_layer=dict(type='RoIAlignRotated', output_size=7, sampling_ratio=0),
                backend='embedding_bag',
            )
        ),
        ConfigError,
        ('backend', 'sampling_ratio=0', 'sampling_ratio >= 1.*roi_align'),
    ),
    Case(
        POOLING,
        'embedding_bag with a maximum',
        builds({**roi_layer(pool_mode='max'), 'backend': 'embedding_bag'}),
        ConfigError,
        ('backend', 'pool_mode=max', "pool_mode='avg'"),
    ),
    Case(
        POOLING,
        'fewer maps than featmap_strides',
        pooling_on(levels=3),
        ConfigError,
        ('featmap_strides', '3 feature maps', r'\[4, 8, 16, 32\] names 4'),
    ),
    Case(
        POOLING,
        'maps of other channels than out_channels',
        pooling_on(channels=24),
        ConfigError,
        ('out_channels', r'\[24, 24, 24, 24\]', '=16'),
    ),
    Case(
        POOLING,
        'RoIs without the index of their image',
        pooling_on(rois=((0.0, 0.0, 9.0, 9.0),)),
        ValueError,
        ('rois', r'\(1, 4\)', r'\(N, 5\)'),
    ),
    Case(HEADS, 'num_levels is 0', builds(box_head(num_levels=0)), ConfigError, ('num_levels', '=0', 'at least 1')),
    Case(
        HEADS,
        'num_levels is a string',
        builds(mask_head(num_levels='4')),
        ConfigError,
        ('num_levels', "='4'", 'a whole number'),
    ),
    Case(
        HEADS,
        'level_fusion is unknown',
        builds(box_head(level_fusion='mean')),
        ConfigError,
        ('level_fusion', "='mean'", "'max', 'sum'"),
    ),
    Case(
        HEADS,
        'level_fusion of the mask head is unknown',
        builds(mask_head(level_fusion='concat')),
        ConfigError,
        ('level_fusion', "='concat'", "'max', 'sum'"),
    ),
    Case(
        HEADS,
        'with_avg_pool in a box head',
        builds(box_head(with_avg_pool=True)),
        ConfigError,
        ('with_avg_pool', '=True', 'only with_avg_pool=False'),
    ),
    Case(HEADS, 'num_classes is 0', builds(box_head(num_classes=0)), ConfigError, ('num_classes', '=0', 'at least 1')),
    Case(
        HEADS,
        'in_channels of a head is a list',
        builds(box_head(in_channels=[])),
        ConfigError,
        ('in_channels', r'=\[\]', 'a whole number'),
    ),
    Case(
        HEADS,
        'fc_out_channels is 0',
        builds(box_head(fc_out_channels=0)),
        ConfigError,
        ('fc_out_channels', '=0', 'at least 1'),
    ),
    Case(
        HEADS,
        'norm_cfg of a box head has groups that do not divide',
        builds(box_head(norm_cfg=GN7)),
        ConfigError,
        ('norm_cfg', "'num_groups': 7", 'divides 32 channels'),
    ),
    Case(
        HEADS,
        'fc_norm_cfg is a name',
        builds(box_head(type='PANetShared4Conv1FCBBoxHead', fc_norm_cfg='BN')),
        ConfigError,
        ('fc_norm_cfg', "='BN'", "dict.type='BN'."),
    ),
    Case(
        HEADS,
        'box head gets features of one level',
        head_on(box_head(), 2, 16, 7, 7),
        ConfigError,
        ('num_levels=4', r'\(2, 16, 7, 7\)', r'\(N, 4, C, h, w\).*AdaptiveFeaturePooling'),
    ),
    Case(
        HEADS,
        'mask head gets features of three levels',
        head_on(mask_head(), 2, 3, 16, 14, 14),
        ConfigError,
        ('num_levels=4', r'\(2, 3, 16, 14, 14\)', r'\(N, 4, C, h, w\)'),
    ),
    Case(
        HEADS,
        'fc_fusion is unknown',
        builds(mask_head(fc_fusion='add')),
        ConfigError,
        ('fc_fusion', "='add'", "'sum', 'product', 'max', None"),
    ),
    Case(
        HEADS,
        'fc_branch_start is 1',
        builds(mask_head(fc_branch_start=1)),
        ConfigError,
        ('fc_branch_start', '=1', r'\(2, 3, 4\)'),
    ),
    Case(
        HEADS,
        'fc_branch_start after the last conv',
        builds(mask_head(fc_branch_start=4, num_convs=3)),
        ConfigError,
        ('fc_branch_start', '=4', 'at most num_convs=3'),
    ),
    Case(
        HEADS,
        'a mask head without convs',
        builds(mask_head(num_convs=0)),
        ConfigError,
        ('num_convs', '=0', 'at least 1'),
    ),
    Case(
        HEADS,
        'norm_cfg that does not divide half of the channels',
        builds(mask_head(norm_cfg=dict(type='GN', num_groups=16))),
        ConfigError,
        ('norm_cfg', "'num_groups': 16", 'divides 8 channels'),
    ),
    Case(
        HEADS,
        'mask head gets grids of another size',
        head_on(mask_head(), 2, 4, 16, 7, 7),
        ConfigError,
        ('roi_feat_size', r'\(7, 7\)', r'\(14, 14\).*output_size'),
    ),
    Case(
        HEADS,
        'upsampling of the mask head is unknown',
        builds(mask_head(upsample_cfg=dict(type='bicubic'))),
        ValueError,
        ('upsample', 'bicubic', '"deconv", "nearest"'),
        'mmdet',
    ),
    Case(
        ROI_HEAD,
        'rois_per_chunk is 0',
        roi_head(lambda r: r.update(rois_per_chunk=0)),
        ConfigError,
        ('rois_per_chunk', '=0', 'None or .*at least 1'),
    ),
    Case(
        ROI_HEAD,
        'rois_per_chunk is -1',
        roi_head(lambda r: r.update(rois_per_chunk=-1)),
        ConfigError,
        ('rois_per_chunk', '=-1', 'None or .*at least 1'),
    ),
    Case(
        ROI_HEAD,
        'rois_per_chunk is a letter',
        roi_head(lambda r: r.update(rois_per_chunk='a')),
        ConfigError,
        ('rois_per_chunk', "='a'", 'None or a whole number'),
    ),
    Case(
        ROI_HEAD,
        "PANet's pooling with mmdet's box head",
        roi_head(lambda r: r['bbox_head'].update(type='Shared2FCBBoxHead')),
        ConfigError,
        ('bbox_head.type', '=Shared2FCBBoxHead', 'PANetShared2FCBBoxHead or PANetShared4Conv1FCBBoxHead'),
    ),
    Case(
        ROI_HEAD,
        "mmdet's extractor with PANet's mask head",
        roi_head(lambda r: r['mask_roi_extractor'].update(type='SingleRoIExtractor')),
        ConfigError,
        ('mask_roi_extractor.type', '=SingleRoIExtractor', 'FCFusionMaskHead.*num_levels=1'),
    ),
    Case(
        ROI_HEAD,
        'num_levels of the head is not that of the pooling',
        roi_head(lambda r: r['bbox_head'].update(num_levels=3)),
        ConfigError,
        ('bbox_head.num_levels', '=3', 'featmap_strides=.* has 4'),
    ),
    Case(
        ROI_HEAD,
        'channels of the head are not those of the pooling',
        roi_head(lambda r: r['mask_head'].update(in_channels=32)),
        ConfigError,
        ('mask_head.in_channels', '=32', 'mask_roi_extractor.out_channels=16'),
    ),
    Case(
        ROI_HEAD,
        'roi_feat_size of the head is not the output_size of the pooling',
        roi_head(lambda r: r['bbox_head'].update(roi_feat_size=14)),
        ConfigError,
        ('bbox_head.roi_feat_size', r'=\(14, 14\)', r'output_size=\(7, 7\)'),
    ),
    Case(
        ROI_HEAD,
        'mask head without an extractor of its own',
        roi_head(lambda r: r.pop('mask_roi_extractor')),
        ConfigError,
        (r'mask_head.roi_feat_size', r'=\(14, 14\)', r'bbox_roi_extractor \(shared.*output_size=\(7, 7\)'),
    ),
    Case(
        ROI_HEAD,
        'mask_size is not what the mask head predicts',
        roi_head(
            lambda r: r.update(
                train_cfg=dict(
                    mask_size=14,
                    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5),
                    sampler=dict(type='RandomSampler', num=8, pos_fraction=0.5),
                )
            )
        ),
        ConfigError,
        ('train_cfg.rcnn.mask_size', r'=\(14, 14\)', r'\(28, 28\)'),
    ),
    Case(
        ROI_HEAD,
        'a RoI head without a box head',
        roi_head(lambda r: r.pop('bbox_head')),
        ConfigError,
        ('bbox_head', '=None', 'must be a config'),
    ),
    Case(
        ROI_HEAD,
        'a RoI head without a box extractor',
        roi_head(lambda r: r.pop('bbox_roi_extractor')),
        ConfigError,
        ('bbox_roi_extractor', '=None', 'must be a config'),
    ),
    Case(
        ROI_HEAD,
        'shared_head with heads that need every level',
        roi_head(lambda r: r.update(shared_head=dict(type='ResLayer', depth=50))),
        ConfigError,
        ('shared_head', '=ResLayer', 'leave shared_head out'),
    ),
    Case(
        NECK,
        'an argument that is misspelt',
        builds(neck(fuson='sum')),
        TypeError,
        ('fuson', 'unexpected keyword argument'),
        'Python',
    ),
    Case(
        NECK,
        'a type that is misspelt',
        builds(neck(type='PanetNeck')),
        KeyError,
        ('PanetNeck', 'not in the mmdet::model registry'),
        'mmengine',
    ),
]
