_base_ = [
    '../_base_/models/mask-rcnn_r50_panet-syncbn-4conv1fc.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/schedule_160k.py',
    '../_base_/default_runtime.py',
]
