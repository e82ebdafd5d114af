# FPN, the baseline, larger nuclei, 12 epochs
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

# Crops and images half as large again, in training and testing.
train_dataloader = dict(dataset=dict(pipeline=_base_.zoom_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.zoom_test_pipeline))
test_dataloader = val_dataloader
