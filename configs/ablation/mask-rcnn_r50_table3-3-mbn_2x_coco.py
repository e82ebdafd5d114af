# Table 3, + MBN: BN over all GPUs after every new layer, nothing frozen.
_base_ = './mask-rcnn_r50_table3-2-mst_2x_coco.py'
custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        # With one level it is mmdet's head, plus BN on its fcs.
        bbox_head=dict(type='PANetShared2FCBBoxHead', num_levels=1, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
