# Table 3, + FF: fully-connected fusion. In Table 5: from conv3, by sum.
_base_ = './mask-rcnn_r50_table3-6-bpa-afp_2x_coco.py'

model = dict(roi_head=dict(mask_head=dict(fc_fusion='sum')))
