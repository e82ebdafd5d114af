# The paper's 2x, for instance segmentation: 120k iterations at a learning rate
# of 0.02 and 40k at 0.002.
_base_ = './schedule_80k.py'

max_iters = 160000
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_iters, by_epoch=False, milestones=[120000], gamma=0.1),
]
