# Table 3, + BPA + AFP: both.
_base_ = './mask-rcnn_r50_table3-5-afp_2x_coco.py'

model = dict(neck=dict(type='PANetNeck'))
