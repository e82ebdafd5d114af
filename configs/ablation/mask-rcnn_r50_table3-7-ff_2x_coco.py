# Table 3, + FF: BPA and AFP with fully-connected fusion; Table 5, from conv3 by sum
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, fc_fusion='sum'),
    ),
)
