# All of PANet on Cityscapes, fine annotations only, from a model trained on COCO; mask AP 41.4 in the paper
#
# What depends on the classes starts anew. The schedule is shorter, as in Mask R-CNN: 4.1k iterations, with the step
# after 3k.
_base_ = './mask-rcnn_r50_panet-syncbn-4conv1fc_1x_cityscapes.py'

model = dict(backbone=dict(init_cfg=None))

train_dataloader = dict(dataset=dict(times=1))
max_epochs = 11
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[8], gamma=0.1),
]

# Train it first, or name a checkpoint of yours: --cfg-options load_from=CHECKPOINT
load_from = 'work_dirs/mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco/iter_160000.pth'
