# Mask R-CNN R-50 with PANet, GN in neck and heads, mmdet's 1x
#
# GN follows every conv and fc of neck and heads, as in the authors' code: for small batches, where BN does not work
# well.
_base_ = './mask-rcnn_r50_panet_1x_coco.py'

norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(
    neck=dict(norm_cfg=norm_cfg), roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg))
)
