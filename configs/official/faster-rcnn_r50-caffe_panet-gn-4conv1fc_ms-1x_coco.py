# The authors' box-only model: Faster R-CNN R-50 (caffe style), GN, heavier box head
#
# configs/panet/e2e_panet_R-50-FPN_1x_det.yaml of their code, setting by setting. What their code base sets by default
# is marked "default there".
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
# Boxes name their last pixel: a width is x2 - x1 + 1, for coders, IoU and NMS.
bbox_coder = dict(type='InclusiveBBoxCoder')
iou_calculator = dict(type='InclusiveBBoxOverlaps2D')
nms = dict(offset=1)

model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(type='BN', requires_grad=False),
        style='caffe',
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'),
    ),
    neck=dict(
        type='PANetNeck', norm_cfg=norm_cfg, bottom_up_bias=True, init_cfg=dict(type='Caffe2Xavier', layer='Conv2d')
    ),
    rpn_head=dict(
        anchor_generator=dict(type='InclusiveAnchorGenerator', center_offset=0.5),
        bbox_coder=bbox_coder,
        loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0),
    ),
    roi_head=dict(
        type='InclusiveBoxRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling', roi_layer=dict(sampling_ratio=2, aligned=False)),
        bbox_head=dict(
            type='PANetShared4Conv1FCBBoxHead',
            norm_cfg=norm_cfg,
            init_cfg=[
                dict(type='Caffe2Xavier', layer='FCModule'),
                dict(type='Normal', std=0.01, override=dict(name='fc_cls')),
                dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
            ],
            bbox_coder=bbox_coder,
            # on deltas times (10, 10, 5, 5): the coder's target_stds
            loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 3, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(
        rpn=dict(
            # The best anchor of an object counts, however little it overlaps.
            assigner=dict(min_pos_iou=1e-3, iou_calculator=iou_calculator),
            allowed_border=0,
        ),  # default there: RPN_STRADDLE_THRESH
        rpn_proposal=dict(nms_pre=2000, max_per_img=2000, nms=nms, min_bbox_size=-1),
        rcnn=dict(assigner=dict(iou_calculator=iou_calculator)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=nms, min_bbox_size=-1),
        rcnn=dict(score_thr=0.05, nms=dict(iou_threshold=0.5, offset=1)),
    ),
)

# Short edges 1200 (twice as often), 1000, 800, 600, 400; longest edge 1400.
# Images are resized as floats there.
train_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True, backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='ToInclusiveBoxes'),
    dict(
        type='RandomChoiceResize',
        scales=[(1400, 1200), (1400, 1200), (1400, 1000), (1400, 800), (1400, 600), (1400, 400)],
        keep_ratio=True,
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', to_float32=True, backend_args=None),
    dict(type='Resize', scale=(1400, 1000), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'), dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# 8 GPUs of 2 images; learning rate 0.02
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=90000, val_interval=10000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),  # default there: WARM_UP_ITERS
    dict(type='MultiStepLR', by_epoch=False, milestones=[60000, 80000], gamma=0.1),
]
# default there: biases, also those of norms, learn twice as fast, and neither
# they nor norms decay
norm_bias = dict(lr_mult=2.0, decay_mult=0.0)
optim_wrapper = dict(
    paramwise_cfg=dict(
        bias_lr_mult=2.0,
        bias_decay_mult=0.0,
        norm_decay_mult=0.0,
        custom_keys={
            'gn.bias': norm_bias,  # of convs
            'norm.bias': norm_bias,  # of fcs
        },
    )
)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
log_processor = dict(by_epoch=False)
