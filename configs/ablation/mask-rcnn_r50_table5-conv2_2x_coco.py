# Table 5, the side path of fully-connected fusion starts after conv2
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, fc_fusion='sum', fc_branch_start=2),
    ),
)
