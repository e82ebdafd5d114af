# Table 3, + MBN: MST with synchronized BN after every new layer and no layer frozen; Table 4, no AFP
#
# This is the baseline from which all rows below it inherit.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_paper.py',
    '../_base_/schedules/schedule_160k.py',
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
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

train_pipeline = _base_.multi_scale_train_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
