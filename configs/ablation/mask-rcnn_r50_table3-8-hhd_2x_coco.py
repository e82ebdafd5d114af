# Table 3, + HHD: the heavier box head. This is all of PANet.
_base_ = './mask-rcnn_r50_table3-7-ff_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', fc_norm_cfg=_base_.norm_cfg)))
