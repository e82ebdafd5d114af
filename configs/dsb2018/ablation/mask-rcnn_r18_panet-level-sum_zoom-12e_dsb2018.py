# The same with images half as large again, in training and testing
_base_ = './mask-rcnn_r18_panet-level-sum_12e_dsb2018.py'

train_dataloader = dict(dataset=dict(pipeline=_base_.zoom_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.zoom_test_pipeline))
test_dataloader = val_dataloader
