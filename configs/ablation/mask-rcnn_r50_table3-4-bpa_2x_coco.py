# Table 3, + BPA: MBN with bottom-up path augmentation
_base_ = './mask-rcnn_r50_table3-3-mbn_2x_coco.py'

model = dict(neck=dict(type='PANetNeck'))
