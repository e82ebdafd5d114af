# Table 3, RBL, box column: the detector is trained without masks and at one
# scale.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]

# Adaptive feature pooling samples so too: the rows differ in nothing else.
model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2))))
