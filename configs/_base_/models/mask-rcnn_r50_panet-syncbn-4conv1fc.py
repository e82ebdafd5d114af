# With the heavier box head.
_base_ = './mask-rcnn_r50_panet-syncbn-2fc.py'

model = dict(roi_head=dict(bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', fc_norm_cfg=_base_.norm_cfg)))
