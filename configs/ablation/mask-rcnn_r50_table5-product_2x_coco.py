# Table 5: both paths are fused by product. Not rectified: where the fc gave
# zero, neither path would learn.
_base_ = './mask-rcnn_r50_table3-7-ff_2x_coco.py'

model = dict(roi_head=dict(mask_head=dict(fc_fusion='product', fc_relu=False)))
