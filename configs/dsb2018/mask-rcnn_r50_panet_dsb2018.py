# Mask R-CNN R-50 with PANet, pretrained on ImageNet, 60 epochs: for a GPU
_base_ = './mask-rcnn_r50_fpn_dsb2018.py'

custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=4, norm_cfg=norm_cfg),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', num_levels=4),
    ),
)
