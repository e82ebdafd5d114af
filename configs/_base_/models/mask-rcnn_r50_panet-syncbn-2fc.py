# Mask R-CNN with all of PANet, trained as in the paper: synchronised BN after
# every new layer of neck and heads, and no layer of the backbone frozen.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(type='PANetNeck', norm_cfg=norm_cfg),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        bbox_head=dict(type='PANetShared2FCBBoxHead', norm_cfg=norm_cfg),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(type='FCFusionMaskHead', norm_cfg=norm_cfg),
    ),
)
