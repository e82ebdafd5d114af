# FCOS R-50 (caffe style) with PANet's neck, mmdet's 1x
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(neck=dict(type='PANetNeck'))
