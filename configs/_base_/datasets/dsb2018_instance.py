# Data Science Bowl 2018 (nuclei) in COCO format:
# tools/dataset_converters/dsb2018.py
dataset_type = 'CocoDataset'
data_root = 'data/dsb2018/'
metainfo = dict(classes=('nucleus',), palette=[(220, 20, 60)])


# Images are of many sizes, from 256 x 256 to 1040 x 1388, and so are nuclei.
# A crop of a random size, brought to one size, is a crop at a random scale.
def crops(*sizes):
    return dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomCrop', crop_size=(size, size), recompute_bbox=True, allow_negative_crop=True)]
            for size in sizes
        ],
    )


def training(*crop_sizes):
    return [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        crops(*crop_sizes),
        dict(type='Resize', scale=(256, 256), keep_ratio=True),
        # a crop may leave nothing of an object
        dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2), min_gt_mask_area=8, by_mask=True, keep_empty=False),
        dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
        dict(type='PackDetInputs'),
    ]


def testing(scale_factor):
    return [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale_factor=scale_factor),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]


train_pipeline = training(160, 208, 256, 320)
test_pipeline = testing(1.0)
# Most nuclei are below 32 x 32 pixels. The same, half as large again.
zoom_train_pipeline = training(112, 144, 192, 256)
zoom_test_pipeline = testing(1.5)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        metainfo=metainfo,
        ann_file='val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'val.json', metric=['bbox', 'segm'])
test_evaluator = val_evaluator
