# Table 3, + BPA + AFP, box column.
_base_ = './faster-rcnn_r50_table3-5-afp_1x_coco.py'

model = dict(neck=dict(type='PANetNeck'))
