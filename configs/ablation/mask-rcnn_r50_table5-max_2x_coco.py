# Table 5: both paths are fused by maximum. Not rectified: no logit could be
# negative, and every pixel would be foreground.
_base_ = './mask-rcnn_r50_table3-7-ff_2x_coco.py'

model = dict(roi_head=dict(mask_head=dict(fc_fusion='max', fc_relu=False)))
