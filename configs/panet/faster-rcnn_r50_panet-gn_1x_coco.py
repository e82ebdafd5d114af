# GN on every conv and fc of neck and head, as the authors' code has it:
# for small batches, where BN does not serve.
_base_ = './faster-rcnn_r50_panet_1x_coco.py'

norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(neck=dict(norm_cfg=norm_cfg), roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg)))
