# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Configs in the form of MMOCR, MMRotate and MMDetection3D, which need not be installed here.

``.dev_scripts/family.py`` swaps, builds and runs the configs of the packages themselves.
"""

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmpanet.models import PANetNeck, RotatedAdaptiveFeaturePooling
from mmpanet.swap import SwapError, swap_config, write_config
from mmpanet.swap.config import plan_swap
from mmpanet.swap.options import SwapOptions
from mmpanet.utils.configs import load_config
from mmpanet.utils.model_building import build_model, scope_of


@pytest.fixture(autouse=True)
def default_scope():
    """Building a config of another scope changes the default scope of the process."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def ocr_config(small_config, tmp_path):
    """A config as MMOCR writes it: the detector comes from MMDetection, and is changed inside a wrapper."""
    small_config.dump(str(tmp_path / 'detector.py'))
    path = tmp_path / 'text_detector.py'
    path.write_text(
        "_base_ = 'detector.py'\n"
        "mask_rcnn = _base_.pop('model')\n"
        'mask_rcnn.update(dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1))))\n'
        "model = dict(type='MMDetWrapper', text_repr_type='poly', cfg=mask_rcnn)\n"
        "default_scope = 'mmocr'\n"
    )
    return path


def test_a_model_inside_a_wrapper(ocr_config, tmp_path):
    swap = plan_swap(load_config(ocr_config), SwapOptions(roi_head=True))
    assert swap.models == [('model', 'cfg')]
    detector = swap.config.model.cfg
    assert detector.neck.type == 'PANetNeck' and detector.roi_head.type == 'PANetRoIHead'
    assert scope_of(swap.config, ('model', 'cfg')) == 'mmdet' and scope_of(swap.config, ('model',)) == 'mmocr'
    model = build_model(swap.config, ('model', 'cfg'))
    assert type(model.neck) is PANetNeck

    text = write_config(swap.config, ocr_config, tmp_path / 'swapped.py')
    assert 'cfg=dict(' in text and "neck=dict(type='PANetNeck')" in text
    assert load_config(tmp_path / 'swapped.py').model.cfg == detector


def test_the_scope_that_mmengine_writes(small_config):
    """A part that comes from a base of another package carries the scope of this package."""
    wrapped = dict(type='Wrapper', detector=dict(small_config.model, _scope_='mmdet'))
    cfg = Config(dict(model=wrapped, default_scope='mmocr'))
    assert swap_config(cfg).model.detector.neck.type == 'PANetNeck'


@pytest.mark.parametrize('scope', ['mmocr', 'mmrotate', 'mmdet3d'])
def test_names_with_a_scope_keep_it(scope):
    neck = dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2)
    cfg = swap_config(Config(dict(model=dict(type='FCENet', neck=neck), default_scope=scope)))
    assert cfg.model.neck.type == 'mmdet.PANetNeck'
    assert type(build_model(cfg, ('model', 'neck'))) is PANetNeck


@MODELS.register_module()
class RotatedSingleRoIExtractor(SingleRoIExtractor):
    """It stands for the class of this name in MMRotate."""


def rotated_config(**roi_head):
    """The RoI heads of MMRotate's Oriented R-CNN, with the names that it has there."""

    def head():
        return dict(
            type='mmdet.Shared2FCBBoxHead',
            predict_box_type='rbox',
            in_channels=16,
            fc_out_channels=32,
            num_classes=15,
            reg_predictor_cfg=dict(type='mmdet.Linear'),
            cls_predictor_cfg=dict(type='mmdet.Linear'),
            reg_class_agnostic=True,
        )

    horizontal = dict(
        type='mmdet.SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
    )
    rotated = dict(
        horizontal,
        type='RotatedSingleRoIExtractor',
        roi_layer=dict(type='RoIAlignRotated', out_size=7, sample_num=2, clockwise=True),
    )
    parts = dict(
        oriented=dict(type='mmdet.StandardRoIHead', bbox_roi_extractor=rotated, bbox_head=head()),
        cascade=dict(
            type='mmdet.CascadeRoIHead',
            num_stages=2,
            stage_loss_weights=[1, 1],
            bbox_roi_extractor=[horizontal, rotated],
            bbox_head=[head(), head()],
        ),
    )
    neck = dict(type='mmdet.FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=5)
    model = dict(type='mmdet.FasterRCNN', neck=neck, roi_head={**parts['oriented'], **roi_head})
    if roi_head.get('type') == 'cascade':
        model['roi_head'] = parts['cascade']
    return Config(dict(model=model, default_scope='mmrotate'))


def test_rotated_rois():
    roi_head = swap_config(rotated_config(), roi_head=True).model.roi_head
    assert roi_head.type == 'mmdet.PANetRoIHead' and roi_head.bbox_head.type == 'mmdet.PANetShared2FCBBoxHead'
    extractor = roi_head.bbox_roi_extractor
    # The name has no scope in MMRotate's config. Ours is in the registry of mmdet.
    assert extractor.type == 'mmdet.RotatedAdaptiveFeaturePooling'
    assert extractor.roi_layer == dict(type='RoIAlignRotated', output_size=7, sampling_ratio=2, clockwise=True)
    assert type(MODELS.build(extractor)) is RotatedAdaptiveFeaturePooling
    with pytest.raises(SwapError, match='it is swapped already'):
        swap_config(swap_config(rotated_config(), roi_head=True), roi_head=True)


def test_a_cascade_from_horizontal_to_rotated_rois():
    swap = plan_swap(rotated_config(type='cascade'), SwapOptions(roi_head=True))
    extractors = swap.config.model.roi_head.bbox_roi_extractor
    assert [one.type for one in extractors] == ['mmdet.AdaptiveFeaturePooling', 'mmdet.RotatedAdaptiveFeaturePooling']
    assert [one.roi_layer.sampling_ratio for one in extractors] == [2, 2]
    assert [head.type for head in swap.config.model.roi_head.bbox_head] == ['mmdet.PANetShared2FCBBoxHead'] * 2


def test_number_of_samples_of_rotated_rois():
    cfg = rotated_config()
    cfg.model.roi_head.bbox_roi_extractor.roi_layer.sample_num = 0
    layer = swap_config(cfg, roi_head=True, sampling_ratio=3).model.roi_head.bbox_roi_extractor.roi_layer
    assert layer == dict(type='RoIAlignRotated', output_size=7, sampling_ratio=3, clockwise=True)
    grown = plan_swap(cfg, SwapOptions(roi_head=True, grow=True))
    assert grown.config.model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio == 0
    assert any('keeps sampling_ratio=0' in note and 'changes the outputs' in note for note in grown.notes)


def test_what_is_refused_of_rotated_heads():
    cfg = rotated_config()
    cfg.model.roi_head.bbox_roi_extractor.roi_layer = dict(type='RiRoIAlignRotated', out_size=7, num_samples=2)
    with pytest.raises(SwapError, match='roi_layer.type=RiRoIAlignRotated: .* replaces only RoIAlignRotated'):
        swap_config(cfg, roi_head=True)
    cfg = rotated_config(type='GVRatioRoIHead')
    with pytest.raises(SwapError, match='type=GVRatioRoIHead: its box head predicts vertices too'):
        swap_config(cfg, roi_head=True)
    assert swap_config(cfg).model.neck.type == 'mmdet.PANetNeck'


def test_necks_for_images_and_for_points():
    """MMDetection3D's models of several sensors."""
    fpn = dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2)
    model = dict(type='MVXFasterRCNN', img_neck=dict(fpn), pts_neck=dict(type='SECONDFPN', in_channels=[8, 16]))
    swapped = swap_config(Config(dict(model=model, default_scope='mmdet3d')))
    assert swapped.model.img_neck == {**fpn, 'type': 'mmdet.PANetNeck'}
    assert swapped.model.pts_neck == model['pts_neck']
    model['pts_neck'] = dict(fpn)
    swapped = swap_config(Config(dict(model=model, default_scope='mmdet3d')))
    assert swapped.model.img_neck == swapped.model.pts_neck == {**fpn, 'type': 'mmdet.PANetNeck'}
    with pytest.raises(SwapError, match='it is a PANetNeck already'):
        swap_config(swapped)
