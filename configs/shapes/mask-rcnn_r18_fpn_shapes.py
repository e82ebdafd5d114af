# Small Mask R-CNN R-18 with FPN, 2 epochs: the baseline
_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/shapes_instance.py',
    '../_base_/schedules/schedule_small.py',
]

model = dict(
    # BN, more epochs over fewer images, and larger batches reach less AP: "Generated shapes" in docs/results.md
    backbone=dict(norm_cfg=dict(type='GN', num_groups=16)),
    roi_head=dict(bbox_head=dict(num_classes=4), mask_head=dict(num_classes=4)),
)

max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    # With few steps, this and betas of (0.9, 0.98) reached more AP than a cosine and the default betas.
    dict(type='PolyLR', power=1.0, end=max_epochs, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(betas=(0.9, 0.98)))
