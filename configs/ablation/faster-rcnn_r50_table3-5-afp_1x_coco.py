# Table 3, + AFP (without BPA), box column.
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(
    roi_head=dict(
        type='PANetRoIHead', bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'), bbox_head=dict(num_levels=4)
    )
)
