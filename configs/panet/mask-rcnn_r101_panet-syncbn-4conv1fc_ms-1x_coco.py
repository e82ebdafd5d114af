_base_ = './mask-rcnn_r50_panet-syncbn-4conv1fc_ms-1x_coco.py'

model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
