_base_ = ['../_base_/models/mask-rcnn_r18_fpn_small.py', '../_base_/datasets/shapes_instance.py']

model = dict(roi_head=dict(bbox_head=dict(num_classes=4), mask_head=dict(num_classes=4)))
