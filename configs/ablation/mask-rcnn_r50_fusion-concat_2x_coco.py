# Not in the paper: P(i+1) and N(i) are fused by concatenation and a 1x1 conv.
# The sum is the row + BPA of Table 3.
_base_ = './mask-rcnn_r50_table3-4-bpa_2x_coco.py'

model = dict(neck=dict(fusion='concat'))
