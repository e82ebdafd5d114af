# + bottom-up path augmentation and adaptive feature pooling
_base_ = './mask-rcnn_r18_afp_12e_dsb2018.py'

model = dict(neck=dict(type='PANetNeck'))
