# Table 3, + MST: RBL with multi-scale training
_base_ = './mask-rcnn_r50_table3-1-rbl_2x_coco.py'

train_pipeline = _base_.multi_scale_train_pipeline
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
