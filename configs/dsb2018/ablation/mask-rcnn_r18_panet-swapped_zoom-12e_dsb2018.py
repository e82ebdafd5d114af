# PANet put into the FPN model of the same name, as `tools/model_converters/swap_neck.py
# --roi-head --warm-start` writes it; for the checkpoint that it writes too.
_base_ = './mask-rcnn_r18_fpn_zoom-12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck', warm_start=True, bottom_up_norm_cfg=None, bottom_up_act_cfg=None),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(num_levels=4),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead'),
    ),
)
