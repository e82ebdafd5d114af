# Table 3, + HHD, box column. The row above it, FF, concerns masks alone.
_base_ = './faster-rcnn_r50_table3-6-bpa-afp_1x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', fc_norm_cfg=_base_.norm_cfg)))
