# A schedule of 5 epochs for small models that are trained from scratch, and a runtime that draws predictions.
_base_ = 'mmdet::_base_/default_runtime.py'

max_epochs = 5
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1.5e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]

default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=1),
    # predictions beside ground truth, for every tenth image
    visualization=dict(draw=True, interval=10, score_thr=0.5),
)
visualizer = dict(line_width=1, alpha=0.5)
randomness = dict(seed=0)
