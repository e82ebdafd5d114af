# Not in the paper: P(i+1) and N(i) are fused by a sum with learned weights.
_base_ = './mask-rcnn_r50_table3-4-bpa_2x_coco.py'

model = dict(neck=dict(fusion='weighted'))
