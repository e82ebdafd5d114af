# Table 4: the pooled grids are fused before the first layer, by maximum.
_base_ = './mask-rcnn_r50_table3-5-afp_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(fuse_before_first_layer=True), mask_head=dict(fuse_before_first_layer=True)))
