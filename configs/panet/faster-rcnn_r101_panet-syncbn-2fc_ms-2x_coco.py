_base_ = './faster-rcnn_r50_panet-syncbn-2fc_ms-2x_coco.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
