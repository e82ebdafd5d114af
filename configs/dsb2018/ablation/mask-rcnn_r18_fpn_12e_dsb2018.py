# The row that the others are compared to: FPN, with a norm in neck and heads as
# in all of them. `PANetShared2FCBBoxHead` with one level is mmdet's own head
# with a norm on its fcs.
_base_ = '../mask-rcnn_r18_fpn_dsb2018.py'

custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)
model = dict(roi_head=dict(bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, norm_cfg=norm_cfg)))

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(visualization=dict(draw=False))
