# Small Mask R-CNN R-18 with FPN, 5 epochs: the baseline
_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/schedule_small.py',
]

model = dict(
    # with BN the same 625 steps end 5 box AP lower: "Generated shapes" in docs/results.md
    backbone=dict(norm_cfg=dict(type='GN', num_groups=16)),
    roi_head=dict(bbox_head=dict(num_classes=4), mask_head=dict(num_classes=4)),
)
