# + fully-connected fusion
_base_ = './mask-rcnn_r18_bpa-afp_12e_dsb2018.py'

model = dict(roi_head=dict(mask_head=dict(fc_fusion='sum')))
