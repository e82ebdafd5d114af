# FPN, the baseline, 48 epochs
_base_ = './mask-rcnn_r18_fpn_12e_dsb2018.py'

max_epochs = 48
train_cfg = dict(max_epochs=max_epochs, val_interval=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
