# Table 4: fused after the first layer, by sum.
_base_ = './mask-rcnn_r50_table3-5-afp_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(level_fusion='sum'), mask_head=dict(level_fusion='sum')))
