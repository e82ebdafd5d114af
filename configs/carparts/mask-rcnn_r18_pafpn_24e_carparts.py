# mmdet's PAFPN in place of FPN
_base_ = './mask-rcnn_r18_fpn_24e_carparts.py'

model = dict(neck=dict(type='PAFPN'))
