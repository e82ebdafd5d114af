# Table 3, RBL and + MST, detector: Faster R-CNN with FPN, trained without masks and at one scale
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection_paper.py',
    '../_base_/schedules/schedule_80k.py',
]

# Adaptive feature pooling samples RoIs in the same way, so that the rows differ in nothing else.
model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2))))
