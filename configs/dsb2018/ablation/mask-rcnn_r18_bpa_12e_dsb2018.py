# FPN + bottom-up path augmentation (BPA)
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

model = dict(neck=dict(type='PANetNeck'))
