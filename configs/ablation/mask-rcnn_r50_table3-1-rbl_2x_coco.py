# Table 3, RBL: Mask R-CNN with FPN, as the paper re-implements it
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_paper.py',
    '../_base_/schedules/schedule_160k.py',
]

# Adaptive feature pooling samples RoIs in the same way, so that the rows differ in nothing else.
model = dict(
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2)),
    )
)
