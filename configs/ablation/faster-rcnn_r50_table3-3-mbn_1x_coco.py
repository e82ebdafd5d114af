# Table 3, + MBN, detector: RBL with synchronized BN after every new layer and no layer frozen; Table 4, no AFP
#
# This is the baseline from which all rows below it inherit.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection_paper.py',
    '../_base_/schedules/schedule_80k.py',
]
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        # With one level, this is mmdet's head with BN after its fcs.
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, norm_cfg=norm_cfg),
    ),
)
