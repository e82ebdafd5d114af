# mmdet's FCOS with bottom-up path augmentation, the part without RoIs.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

model = dict(neck=dict(type='PANetNeck'))
