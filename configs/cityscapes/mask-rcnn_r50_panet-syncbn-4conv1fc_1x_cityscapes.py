# All of PANet on Cityscapes, fine annotations only, from ImageNet: mmdet's
# recipe (shorter edge 800 to 1024, batch 8, 64 epochs) is the paper's but for
# the step.
_base_ = 'mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(type='PANetNeck', norm_cfg=norm_cfg),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', norm_cfg=norm_cfg, fc_norm_cfg=norm_cfg),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(type='FCFusionMaskHead', norm_cfg=norm_cfg),
    ),
)

# 23.8k iterations with the step after 17.9k; in the paper 24k and 18k.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=8, by_epoch=True, milestones=[6], gamma=0.1),
]

load_from = None
