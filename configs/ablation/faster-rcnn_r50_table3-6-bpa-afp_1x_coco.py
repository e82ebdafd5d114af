# Table 3, + BPA + AFP, detector: MBN with both
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
    ),
)
