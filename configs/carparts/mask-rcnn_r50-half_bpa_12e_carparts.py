# FPN + bottom-up path augmentation (BPA) on the pretrained ResNet-50 of half the width
_base_ = './mask-rcnn_r50-half_fpn_12e_carparts.py'

model = dict(neck=dict(type='PANetNeck'))
