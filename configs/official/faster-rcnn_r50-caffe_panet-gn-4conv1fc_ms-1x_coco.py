# The authors' box-only model with the heavier head:
# configs/panet/e2e_panet_R-50-FPN_1x_det.yaml of their code, setting by
# setting. What their code base sets by default is marked "default there".
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
legacy_coder = dict(type='LegacyDeltaXYWHBBoxCoder')

model = dict(
    data_preprocessor=dict(
        mean=[102.9801, 115.9465, 122.7717],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(type='BN', requires_grad=False),
        style='caffe',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='open-mmlab://detectron2/resnet50_caffe')),
    neck=dict(type='PANetNeck', norm_cfg=norm_cfg, bottom_up_bias=True),
    rpn_head=dict(
        anchor_generator=dict(
            type='DetectronAnchorGenerator', center_offset=0.5),
        bbox_coder=legacy_coder,
        loss_bbox=dict(
            _delete_=True, type='SmoothL1Loss', beta=1 / 9, loss_weight=1.0)),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(
            type='AdaptiveFeaturePooling',
            roi_layer=dict(sampling_ratio=2, aligned=False)),
        bbox_head=dict(
            type='PANetShared4Conv1FCBBoxHead',
            norm_cfg=norm_cfg,
            bbox_coder=legacy_coder,
            # on deltas times (10, 10, 5, 5): the coder's target_stds
            loss_bbox=dict(
                _delete_=True, type='SmoothL1Loss', beta=1 / 3,
                loss_weight=1.0))),
    train_cfg=dict(
        rpn=dict(allowed_border=0),  # default there: RPN_STRADDLE_THRESH
        rpn_proposal=dict(nms_pre=2000, max_per_img=2000)),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000),
        rcnn=dict(score_thr=0.05, nms=dict(iou_threshold=0.5))))

# short edges 1200 (twice as often), 1000, 800, 600, 400; longest edge 1400
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1400, 1200), (1400, 1200), (1400, 1000), (1400, 800),
                (1400, 600), (1400, 400)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(1400, 1000), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                   'scale_factor'))
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler'),
    dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# 8 GPUs of 2 images; learning rate 0.02
train_cfg = dict(
    _delete_=True,
    type='IterBasedTrainLoop',
    max_iters=90000,
    val_interval=10000)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1 / 3,
        by_epoch=False,
        begin=0,
        end=500),  # default there: WARM_UP_ITERS
    dict(
        type='MultiStepLR',
        by_epoch=False,
        milestones=[60000, 80000],
        gamma=0.1)
]
# default there: biases learn twice as fast, and neither they nor norms decay
optim_wrapper = dict(
    paramwise_cfg=dict(
        bias_lr_mult=2., bias_decay_mult=0., norm_decay_mult=0.))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
log_processor = dict(by_epoch=False)
