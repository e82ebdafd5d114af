# All of PANet, levels fused by sum, larger nuclei, 12 epochs
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

# Crops and images half as large again, in training and testing.
train_dataloader = dict(dataset=dict(pipeline=_base_.zoom_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.zoom_test_pipeline))
test_dataloader = val_dataloader
