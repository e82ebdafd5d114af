# Faster R-CNN R-50 with PANet, mmdet's 1x
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(type='PANetShared2FCBBoxHead'),
    ),
)
