# Cascade Mask R-CNN R-50 with PANet, mmdet's 1x
#
# Its RoI head passes the pooled features on as they come, so that it needs no counterpart of ours.
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(
    neck=dict(type='PANetNeck'),
    roi_head=dict(
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=[dict(stage, type='PANetShared2FCBBoxHead') for stage in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(type='FCFusionMaskHead'),
    ),
)
