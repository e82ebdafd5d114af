# Table 4's fourth combination, which the paper does not report: fused before
# the first layer, by sum.
_base_ = './mask-rcnn_r50_table4-before-max_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(level_fusion='sum'), mask_head=dict(level_fusion='sum')))
