# The authors' box-only model: Faster R-CNN R-50 (caffe style), GN, box head of two fcs
#
# configs/panet/e2e_panet_R-50-FPN_1x_det_2fc.yaml of their code.
_base_ = './faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco.py'

# norm_cfg now stands on both fcs
model = dict(roi_head=dict(bbox_head=dict(type='PANetShared2FCBBoxHead')))
