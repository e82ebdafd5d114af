_base_ = './mask-rcnn_x101-64x4d_panet-syncbn-4conv1fc_ms-1x_coco.py'

model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False), stage_with_dcn=(False, True, True, True)
    )
)
