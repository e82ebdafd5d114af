# Table 4: fused after the first layer, by sum.
_base_ = './faster-rcnn_r50_table3-5-afp_1x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(level_fusion='sum')))
