# PANet but for the heavier box head, on the pretrained ResNet-50 of half the width
_base_ = './mask-rcnn_r50-half_fpn_12e_carparts.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', fc_fusion='sum'),
    ),
)
