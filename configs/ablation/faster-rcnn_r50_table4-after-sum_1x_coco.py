# Table 4, detector: levels fused after the first layer by sum, without BPA
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4, level_fusion='sum'),
    )
)
