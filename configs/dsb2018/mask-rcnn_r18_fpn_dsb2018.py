# Small Mask R-CNN R-18 with FPN, 5 epochs: the baseline
_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/dsb2018_instance.py',
    '../_base_/schedules/schedule_small.py',
]

model = dict(
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
    # an image holds up to several hundred nuclei
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250), rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=500), rcnn=dict(max_per_img=300)),
)
