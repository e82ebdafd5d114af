# Table 4, levels fused before the first layer by maximum, without BPA
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4, fuse_before_first_layer=True),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, fuse_before_first_layer=True, fc_fusion=None),
    )
)
