# FPN + bottom-up path augmentation (BPA)
_base_ = './mask-rcnn_r18_fpn_24e_carparts.py'

model = dict(neck=dict(type='PANetNeck'))
