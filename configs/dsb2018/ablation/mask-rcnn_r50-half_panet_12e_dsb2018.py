# All of PANet, levels fused by max, on the pretrained ResNet-50 of half the width
_base_ = './mask-rcnn_r50-half_fpn_12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', num_levels=4, conv_out_channels=64),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', fc_fusion='sum'),
    ),
)
