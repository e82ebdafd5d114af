# PANet put into the FPN model of larger nuclei, warm start, 12 epochs
#
# tools/model_converters/swap_neck.py --roi-head --warm-start makes this model of mask-rcnn_r18_fpn_zoom-12e_dsb2018.py.
# Start it from the checkpoint that the tool writes too.
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck', warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead'),
    ),
)

# Crops and images half as large again, in training and testing.
train_dataloader = dict(dataset=dict(pipeline=_base_.zoom_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.zoom_test_pipeline))
test_dataloader = val_dataloader
