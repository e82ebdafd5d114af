# mmdet's Mask R-CNN R-50 FPN with GN everywhere, with all of PANet. Its box
# head is the heavier one.
_base_ = 'mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(type='FCFusionMaskHead'),
    ),
)
