# Table 3, + HHD, detector: BPA and AFP with the heavier box head
#
# The row above it in the paper, + FF, concerns masks alone.
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', num_levels=4, fc_norm_cfg=_base_.norm_cfg),
    ),
)
