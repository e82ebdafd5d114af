# All of PANet in the paper's recipe: Mask R-CNN R-50, synchronized BN, heavier box head, multi-scale; Table 3, + HHD
_base_ = [
    '../_base_/models/mask-rcnn_r50_panet.py',
    '../_base_/datasets/coco_instance_paper.py',
    '../_base_/schedules/schedule_160k.py',
]

# MBN: a norm over all GPUs after every new layer, and no layer frozen. HHD: the box head of four convs and one fc.
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', norm_cfg=norm_cfg, fc_norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

# MST: multi-scale training.
train_pipeline = _base_.multi_scale_train_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
