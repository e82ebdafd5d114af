# All of PANet, the two paths of the neck fused by learned weights
_base_ = './mask-rcnn_r18_panet_12e_dsb2018.py'

model = dict(neck=dict(fusion='weighted'))
