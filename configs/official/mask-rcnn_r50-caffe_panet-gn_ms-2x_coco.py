# The authors' model of boxes and masks: Mask R-CNN R-50 (caffe style), GN, heavier box head
#
# configs/panet/e2e_panet_R-50-FPN_2x_mask.yaml of their code.
_base_ = './faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco.py'

model = dict(
    type='MaskRCNN',
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        mask_roi_extractor=dict(
            type='AdaptiveFeaturePooling',
            roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2, aligned=False),
            out_channels=256,
            featmap_strides=[4, 8, 16, 32],
        ),
        mask_head=dict(
            type='FCFusionMaskHead',
            norm_cfg=_base_.norm_cfg,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)

# mask targets are drawn from polygons, not cut from masks of the image
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(with_mask=True, poly2mask=False)
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(with_mask=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

# twice the schedule of the box-only models
train_cfg = dict(max_iters=180000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1),
]
