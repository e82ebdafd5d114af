# Table 5, both mask paths fused by product
#
# The fc's output passes no ReLU: where it gave zero, neither path would learn.
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, fc_fusion='product', fc_relu=False),
    ),
)
