# Table 3, + MBN, box column. The row above it, MST, is RBL again: the detector
# is not trained at many scales.
_base_ = './faster-rcnn_r50_table3-1-rbl_1x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        # With one level it is mmdet's head, plus BN on its fcs.
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, norm_cfg=norm_cfg)
    ),
)
