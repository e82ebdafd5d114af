# Mask R-CNN R-50 with PANet, mmdet's 1x
#
# mmdet's mask-rcnn_r50_fpn_1x_coco.py consists of the same files, but for the model.
_base_ = [
    '../_base_/models/mask-rcnn_r50_panet.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
