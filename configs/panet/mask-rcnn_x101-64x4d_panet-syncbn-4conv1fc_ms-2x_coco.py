# All of PANet in the paper's recipe, with X-101-64x4d; test-dev, mask AP 42.0 and box AP 47.4 in the paper
_base_ = './mask-rcnn_r50_panet-syncbn-4conv1fc_ms-2x_coco.py'

model = dict(
    backbone=dict(
        type='ResNeXt',
        depth=101,
        groups=64,
        base_width=4,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_64x4d'),
    )
)
