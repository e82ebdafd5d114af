# mmdet's Mask R-CNN R-50 with PANet in place of FPN: the neck, the RoI extractors and the heads.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(type='PANetShared2FCBBoxHead'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(type='FCFusionMaskHead'),
    ),
)
