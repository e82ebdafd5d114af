# + the heavier head: all of PANet
_base_ = './mask-rcnn_r18_bpa-afp-ff_12e_dsb2018.py'

model = dict(roi_head=dict(bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', conv_out_channels=64)))
