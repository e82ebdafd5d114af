# Table 3, + AFP, detector: MBN with AFP, without BPA; Table 4, fused after the first layer by max
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
    )
)
