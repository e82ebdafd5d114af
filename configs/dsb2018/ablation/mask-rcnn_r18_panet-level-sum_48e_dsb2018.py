# All of PANet, levels fused by sum, 48 epochs
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', num_levels=4, conv_out_channels=64, level_fusion='sum'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', level_fusion='sum', fc_fusion='sum'),
    ),
)

max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
