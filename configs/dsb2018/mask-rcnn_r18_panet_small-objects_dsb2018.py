# Small Mask R-CNN R-18 with PANet, everything for small objects, 12 epochs
#
# Each setting is explained in docs/small_objects.md. It continues from 48 epochs of training:
# --cfg-options load_from=docs/results/weights/mask-rcnn_r18_panet-level-sum_48e_dsb2018.pth
_base_ = './ablation/mask-rcnn_r18_fpn_12e_dsb2018.py'

model = dict(
    neck=dict(type='PANetNeck'),
    # The smallest anchors have a side of 3 x 4 = 12 pixels, on the level of stride 4.
    rpn_head=dict(anchor_generator=dict(scales=[3], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(
        type='PANetRoIHead',
        bbox_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        bbox_head=dict(type='PANetShared4Conv1FCBBoxHead', num_levels=4, conv_out_channels=64, level_fusion='sum'),
        mask_roi_extractor=dict(type='AdaptiveFeaturePooling'),
        mask_head=dict(type='FCFusionMaskHead', level_fusion='sum', fc_fusion='sum'),
    ),
    # Many small objects need many proposals, in training and in testing, and many detections.
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=250)),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=500),
        rcnn=dict(
            score_thr=0.05,
            # Soft-NMS lowers the scores of neighbors that touch, and does not remove them.
            nms=dict(type='soft_nms', iou_threshold=0.5, min_score=0.05),
            max_per_img=300,
        ),
    ),
)

# Crops of 112 to 256 pixels, enlarged to 256, and test images at 1.5 times their size: small objects become larger.
train_dataloader = dict(dataset=dict(pipeline=_base_.zoom_train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=_base_.zoom_test_pipeline))
test_dataloader = val_dataloader
