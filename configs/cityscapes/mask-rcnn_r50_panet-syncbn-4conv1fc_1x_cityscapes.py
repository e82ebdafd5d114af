# All of PANet on Cityscapes, fine annotations only, from ImageNet; mask AP 36.5 in the paper
_base_ = [
    '../_base_/models/mask-rcnn_r50_panet.py',
    'mmdet::_base_/datasets/cityscapes_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(
            type='PANetShared4Conv1FCBBoxHead',
            num_classes=8,
            norm_cfg=norm_cfg,
            fc_norm_cfg=norm_cfg,
            # as in mmdet's cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0),
        ),
        mask_head=dict(num_classes=8, norm_cfg=norm_cfg),
    ),
)

# Batch 8. The data set repeats its images 8 times, so that 8 epochs are 64: 23.8k iterations with the step after 17.9k.
# In the paper there are 24k and 18k.
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_epochs=8)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=8, by_epoch=True, milestones=[6], gamma=0.1),
]
