# Table 3, + AFP: MBN with adaptive feature pooling and without BPA; Table 4, fused after the first layer by max
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, fc_fusion=None),
    )
)
