# RetinaNet R-50 with PANet's neck, mmdet's 1x
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(neck=dict(type='PANetNeck'))
