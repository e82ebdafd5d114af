# Table 5: the side path of fully-connected fusion leaves after conv4.
_base_ = './mask-rcnn_r50_table3-7-ff_2x_coco.py'

model = dict(roi_head=dict(mask_head=dict(fc_branch_start=4)))
