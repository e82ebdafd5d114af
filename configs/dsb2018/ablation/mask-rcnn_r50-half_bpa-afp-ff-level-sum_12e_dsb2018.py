# PANet but for the heavier box head, levels fused by sum, on the pretrained ResNet-50 of half the width
_base_ = './mask-rcnn_r50-half_fpn_12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4, level_fusion='sum'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', level_fusion='sum', fc_fusion='sum'),
    ),
)
