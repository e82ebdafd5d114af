# mmdet's PAFPN in place of FPN
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

model = dict(neck=dict(type='PAFPN'))
