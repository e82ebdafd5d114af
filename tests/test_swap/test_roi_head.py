# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest

from mmdet.registry import MODELS
from mmpanet.swap import SwapError, swap_config
from mmpanet.swap.config import plan_swap
from mmpanet.swap.options import SwapOptions

STANDARD = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'


def types_of(roi_head):
    """The types of an RoI head and its parts. A list gives each type that it contains once."""
    types = {'type': roi_head.type}
    for key, part in roi_head.items():
        if isinstance(part, list) and isinstance(part[0], dict):
            types[key] = '/'.join(dict.fromkeys(one['type'] for one in part))
        elif isinstance(part, dict):
            types[key] = part['type']
    return types


POOLING, TWO_FC, FOUR_CONV, MASK = (
    'AdaptiveFeaturePooling',
    'PANetShared2FCBBoxHead',
    'PANetShared4Conv1FCBBoxHead',
    'FCFusionMaskHead',
)


@pytest.mark.parametrize(
    'name, roi_head, bbox_head, with_mask',
    [
        (STANDARD, 'PANetRoIHead', TWO_FC, True),
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'PANetRoIHead', TWO_FC, False),
        ('gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py', 'PANetRoIHead', FOUR_CONV, True),
        ('seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py', 'PANetRoIHead', TWO_FC, True),
        ('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', 'CascadeRoIHead', TWO_FC, True),
        ('dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py', 'DynamicRoIHead', TWO_FC, False),
        ('pisa/mask-rcnn_r50_fpn_pisa_1x_coco.py', 'PISARoIHead', TWO_FC, True),
    ],
)
def test_roi_head_swap(zoo_config, name, roi_head, bbox_head, with_mask):
    types = types_of(swap_config(zoo_config(name), roi_head=True).model.roi_head)
    expected = dict(type=roi_head, bbox_roi_extractor=POOLING, bbox_head=bbox_head)
    if with_mask:
        expected.update(mask_roi_extractor=POOLING, mask_head=MASK)
    assert types == expected


def test_mask_scoring_keeps_its_mask_branch(zoo_config):
    swap = plan_swap(zoo_config('ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py'), SwapOptions(roi_head=True))
    assert types_of(swap.config.model.roi_head) == dict(
        type='MaskScoringRoIHead',
        bbox_roi_extractor=POOLING,
        bbox_head=TWO_FC,
        mask_roi_extractor='SingleRoIExtractor',
        mask_head='FCNMaskHead',
        mask_iou_head='MaskIoUHead',
    )
    assert any('mask branch stays' in note for note in swap.notes)


@pytest.mark.parametrize(
    'name, why',
    [
        ('htc/htc_r50_fpn_1x_coco.py', 'type=HybridTaskCascadeRoIHead: it adds semantic features'),
        ('scnet/scnet_r50_fpn_1x_coco.py', 'type=SCNetRoIHead'),
        ('sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py', 'type=SparseRoIHead'),
        ('grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py', 'type=GridRoIHead'),
        ('point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py', 'type=PointRendRoIHead'),
        ('double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py', 'type=DoubleHeadRoIHead'),
        ('crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py', 'type=MultiInstanceRoIHead'),
        ('sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py', 'bbox_head.type=SABLHead'),
        ('sabl/sabl-cascade-rcnn_r50_fpn_1x_coco.py', 'bbox_head.type=SABLHead'),
        (
            'groie/mask-rcnn_r50_fpn_groie_1x_coco.py',
            'bbox_roi_extractor.type=GenericRoIExtractor.*mask_roi_extractor.type=GenericRoIExtractor',
        ),
        ('dcn/faster-rcnn_r50_fpn_dpool_1x_coco.py', 'bbox_roi_extractor.roi_layer.type=DeformRoIPoolPack'),
        ('retinanet/retinanet_r50_fpn_1x_coco.py', r'model \(RetinaNet\) has no roi_head'),
    ],
)
def test_refusals_say_why(zoo_config, name, why):
    with pytest.raises(SwapError, match=why) as refusal:
        swap_config(zoo_config(name), roi_head=True)
    assert 'without --roi-head' in str(refusal.value)
    swap_config(zoo_config(name))


def test_sampling_ratio(zoo_config):

    def ratios(**kwargs):
        roi_head = swap_config(zoo_config(STANDARD), roi_head=True, **kwargs).model.roi_head
        return [roi_head[f'{branch}_roi_extractor'].roi_layer.sampling_ratio for branch in ('bbox', 'mask')]

    assert ratios() == [2, 2]
    assert ratios(sampling_ratio=3) == [3, 3]
    assert ratios(sampling_ratio=0) == [0, 0]
    assert ratios(grow=True) == [0, 0], 'the outputs of the old model stay'
    cfg = zoo_config(STANDARD)
    cfg.model.roi_head.bbox_roi_extractor.roi_layer.sampling_ratio = 4
    swapped = swap_config(cfg, roi_head=True).model.roi_head
    assert swapped.bbox_roi_extractor.roi_layer.sampling_ratio == 4, 'what was chosen stays'


def test_former_names_of_arguments(small_config):
    for branch in ('bbox', 'mask'):
        layer = small_config.model.roi_head[f'{branch}_roi_extractor'].roi_layer
        layer.out_size, layer.sample_num = layer.pop('output_size'), layer.pop('sampling_ratio')
    cfg = swap_config(small_config, roi_head=True)
    extractor = cfg.model.roi_head.mask_roi_extractor
    assert extractor.roi_layer == dict(type='RoIAlign', output_size=14, sampling_ratio=2)
    MODELS.build(cfg.model)


def test_an_extractor_without_a_roi_layer_is_refused_by_its_type(small_config):
    small_config.model.roi_head.bbox_roi_extractor = dict(type='MyExtractor', out_channels=16, featmap_strides=[4])
    with pytest.raises(SwapError, match='type=MyExtractor: it fuses levels in its own way'):
        swap_config(small_config, roi_head=True)


def test_level_assignment_goes(zoo_config):
    cfg = zoo_config(STANDARD)
    cfg.model.roi_head.bbox_roi_extractor.finest_scale = 112
    assert 'finest_scale' not in swap_config(cfg, roi_head=True).model.roi_head.bbox_roi_extractor


def test_heads_have_as_many_levels_as_the_pooling(zoo_config):
    roi_head = swap_config(
        zoo_config('faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco.py'), roi_head=True
    ).model.roi_head
    assert len(roi_head.bbox_roi_extractor.featmap_strides) == roi_head.bbox_head.num_levels == 5


def test_a_norm_without_effect_gets_none(zoo_config):
    """mmdet's 2fc head ignores ``norm_cfg``. In PANet's head it is the norm of the fcs."""
    cfg = zoo_config('fpg/faster-rcnn_r50_fpn_crop640-50e_coco.py')
    assert cfg.model.roi_head.bbox_head.norm_cfg.type == 'BN'
    assert swap_config(cfg, roi_head=True).model.roi_head.bbox_head.norm_cfg is None


def test_general_box_head_of_the_same_layers(zoo_config):
    cfg = zoo_config(STANDARD)
    cfg.model.roi_head.bbox_head.update(type='ConvFCBBoxHead', num_shared_convs=4, num_shared_fcs=1)
    head = swap_config(cfg, roi_head=True).model.roi_head.bbox_head
    assert head.type == FOUR_CONV and 'num_shared_convs' not in head
    cfg.model.roi_head.bbox_head.update(num_cls_fcs=1)
    with pytest.raises(SwapError, match='bbox_head.type=ConvFCBBoxHead'):
        swap_config(cfg, roi_head=True)


@pytest.mark.parametrize('bbox_head', [TWO_FC, FOUR_CONV])
def test_panets_heads_of_one_level(small_config, bbox_head):
    """They are mmdet's heads with a norm on the fcs, and keep this norm."""
    heads = small_config.model.roi_head
    heads.bbox_head.update(type=bbox_head, num_levels=1, conv_out_channels=16, norm_cfg=dict(type='GN', num_groups=4))
    heads.mask_head.update(type=MASK, num_levels=1, num_convs=3, fc_branch_start=2)
    roi_head = swap_config(small_config, roi_head=True).model.roi_head
    assert roi_head.bbox_head == {**heads.bbox_head, 'num_levels': 4}
    assert roi_head.mask_head == {**heads.mask_head, 'num_levels': 4}
    MODELS.build(roi_head)
    heads.bbox_head.num_levels = 2
    del heads.mask_head.num_levels
    with pytest.raises(SwapError, match=r'bbox_head.num_levels=2: .*; mask_head.num_levels=4: ') as error:
        swap_config(small_config, roi_head=True)
    assert 'head.type' not in str(error.value)


def test_shared_extractor(small_config):
    """A mask head that uses the features of the box branch needs their size for its fc."""
    small_config.model.roi_head.pop('mask_roi_extractor')
    small_config.model.train_cfg.rcnn.mask_size = 14
    roi_head = swap_config(small_config, roi_head=True).model.roi_head
    assert roi_head.mask_head.roi_feat_size == 7
    MODELS.build(roi_head)


def test_one_dict_for_both_extractors(small_config):
    roi_head = small_config.model.roi_head
    roi_head.mask_roi_extractor = roi_head.bbox_roi_extractor
    swapped = swap_config(small_config, roi_head=True).model.roi_head
    assert swapped.mask_roi_extractor == swapped.bbox_roi_extractor
    assert swapped.mask_roi_extractor.type == 'AdaptiveFeaturePooling' and swapped.mask_head.roi_feat_size == 7


def test_list_of_roi_heads(small_config):
    small_config.model.roi_head = [small_config.model.roi_head]
    with pytest.raises(SwapError, match='model.roi_head is a list of 1 heads'):
        swap_config(small_config, roi_head_only=True)
    assert swap_config(small_config).model.neck.type == 'PANetNeck'


@pytest.mark.parametrize('num_convs', [2, 3, 4])
def test_short_mask_heads(small_config, num_convs):
    small_config.model.roi_head.mask_head.num_convs = num_convs
    roi_head = swap_config(small_config, roi_head=True).model.roi_head
    assert MODELS.build(roi_head).mask_head.fc_branch_start == min(num_convs, 3)


def test_too_short_mask_head(small_config):
    small_config.model.roi_head.mask_head.num_convs = 1
    with pytest.raises(SwapError, match='num_convs=1'):
        swap_config(small_config, roi_head=True)


def test_swap_in_two_steps(small_config):
    """First the neck, then the RoI head."""
    at_once = swap_config(small_config, roi_head=True)
    in_two = swap_config(swap_config(small_config), roi_head=True)
    assert in_two.to_dict() == at_once.to_dict()
    with pytest.raises(SwapError, match='it is swapped already'):
        swap_config(at_once, roi_head=True)


@pytest.mark.parametrize('grow', [False, True])
def test_our_own_single_extractor_is_swapped_too(small_config, grow):
    """It takes the arguments of mmdet's, and `backend`."""
    expected = swap_config(small_config, roi_head=True, grow=grow).model.roi_head
    for branch in ('bbox', 'mask'):
        small_config.model.roi_head[f'{branch}_roi_extractor'].type = 'FastSingleRoIExtractor'
    found = swap_config(small_config, roi_head=True, grow=grow).model.roi_head
    assert found == expected
    MODELS.build(swap_config(small_config, roi_head=True, grow=grow).model)
