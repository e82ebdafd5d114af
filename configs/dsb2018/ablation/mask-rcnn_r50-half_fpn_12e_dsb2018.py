# FPN on a pretrained ResNet-50 of half the width, 12 epochs: the baseline of the pretrained rows
_base_ = [
    '../../_base_/models/mask-rcnn_r50-half_fpn_small.py',
    '../../_base_/datasets/dsb2018_instance.py',
    '../../_base_/schedules/schedule_small.py',
]
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)
model = dict(
    roi_head=dict(
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, num_classes=1, norm_cfg=norm_cfg),
        mask_head=dict(num_classes=1),
    ),
    # an image holds up to several hundred nuclei
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=500), rcnn=dict(max_per_img=300)),
)

# A tenth of the learning rate leaves the pretrained weights what they are.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(visualization=dict(draw=False))
