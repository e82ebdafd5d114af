# Table 3, + BPA, detector: MBN with bottom-up path augmentation
_base_ = './faster-rcnn_r50_table3-3-mbn_1x_coco.py'

model = dict(neck=dict(type='PANetNeck'))
