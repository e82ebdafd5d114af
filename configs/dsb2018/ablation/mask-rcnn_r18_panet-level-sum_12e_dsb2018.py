# All of PANet, levels fused by sum
_base_ = './mask-rcnn_r18_panet_12e_dsb2018.py'

model = dict(roi_head=dict(bbox_head=dict(level_fusion='sum'), mask_head=dict(level_fusion='sum')))
