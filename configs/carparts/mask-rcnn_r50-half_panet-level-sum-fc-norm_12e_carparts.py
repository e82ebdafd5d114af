# All of PANet, levels fused by sum, with a norm in the fc of the heavier head too, as in the fcs of the other rows
_base_ = './mask-rcnn_r50-half_panet-level-sum_12e_carparts.py'

model = dict(roi_head=dict(bbox_head=dict(fc_norm_cfg=dict(type='GN', num_groups=16))))
