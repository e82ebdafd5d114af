# All of PANet, levels fused by sum, with a norm in the fc of the heavier head too, as in the fcs of the other rows
_base_ = './mask-rcnn_r50-half_fpn_12e_carparts.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(
            type='PANetShared4Conv1FCBBoxHead',
            num_levels=4,
            conv_out_channels=64,
            fc_norm_cfg=dict(type='GN', num_groups=16),
            level_fusion='sum',
        ),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', level_fusion='sum', fc_fusion='sum'),
    ),
)
