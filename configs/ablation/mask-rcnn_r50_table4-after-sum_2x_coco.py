# Table 4, levels fused after the first layer by sum, without BPA
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4, level_fusion='sum'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4, level_fusion='sum', fc_fusion=None),
    )
)
