# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import copy

import pytest
import torch
from mmengine.config import Config

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmpanet.models import PANetNeck
from mmpanet.swap import SwapError, swap_config
from mmpanet.swap.config import leave_out_run, plan_swap
from mmpanet.swap.model_search import find_models, necks_of
from mmpanet.swap.options import SwapOptions
from mmpanet.swap.weights import carry_weights
from mmpanet.swap.written_config import write_config
from mmpanet.utils import configs
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError

# One config for each kind of model, of neck arguments and of nesting in the zoo.
SPREAD = [
    'atss/atss_r50_fpn_1x_coco.py',
    'autoassign/autoassign_r50-caffe_fpn_1x_coco.py',
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py',
    'deepsort/deepsort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_fcos-rpn_1x_coco.py',
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py',
    'fpg/mask-rcnn_r50_fpn_crop640-50e_coco.py',
    'fsaf/fsaf_r50_fpn_1x_coco.py',
    'gfl/gfl_r50_fpn_1x_coco.py',
    'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py',
    'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py',
    'htc/htc_r50_fpn_1x_coco.py',
    'libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py',
    'masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py',
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py',
    'resnest/mask-rcnn_s50_fpn_syncbn-backbone+head_ms-1x_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
    'rpn/rpn_r50_fpn_1x_coco.py',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'solo/decoupled-solo-light_r50_fpn_3x_coco.py',
    'sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py',
    'tood/tood_r50_fpn_1x_coco.py',
    'vfnet/vfnet_r50_fpn_1x_coco.py',
    'yolact/yolact_r50_1xb8-55e_coco.py',
]
RETINANET = 'retinanet/retinanet_r50_fpn_1x_coco.py'
MASK_RCNN = 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'


def the_neck(cfg):
    """Find the FPN or PANetNeck of a config, wherever it stands."""
    return next(
        neck for _, model in find_models(cfg.model) for neck in necks_of(model) if neck['type'] in ('FPN', 'PANetNeck')
    )


def build_neck(cfg):
    """Build this neck, with BN in place of SyncBN, because there is only one process."""
    neck = the_neck(cfg).to_dict()
    if neck.get('norm_cfg') and 'SyncBN' in neck['norm_cfg']['type']:
        neck['norm_cfg'] = {**neck['norm_cfg'], 'type': 'BN'}
    neck = MODELS.build(neck)
    neck.init_weights()
    return neck.eval()


@pytest.mark.parametrize('name', SPREAD)
def test_swap_of_the_neck(zoo_config, name):
    cfg = zoo_config(name)
    before = copy.deepcopy(cfg.to_dict())
    swapped = swap_config(cfg, warm_start=True)
    assert cfg.to_dict() == before, 'the input was changed'

    fpn, panet = build_neck(cfg), build_neck(swapped)
    assert type(fpn) is FPN and type(panet) is PANetNeck
    carry_weights(fpn.state_dict(), fpn, panet, warm_start=False)
    maps = [torch.randn(1, channels, max(1, 16 >> i), max(1, 24 >> i)) for i, channels in enumerate(fpn.in_channels)]
    for old, new in zip(fpn(maps), panet(maps)):
        assert torch.equal(old, new)

    # Nothing else has changed.
    assert swapped.custom_imports.imports[-1] == 'mmpanet'
    the_neck(swapped).clear()
    neck = the_neck(cfg)
    neck.clear()
    for one in (cfg, swapped):
        one.pop('custom_imports', None)
    assert swapped.to_dict() == cfg.to_dict()


@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
def test_arguments_in_the_config(zoo_config, fusion):
    neck = the_neck(swap_config(zoo_config(RETINANET), fusion=fusion))
    expected = dict(
        type='PANetNeck',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        add_extra_convs='on_input',
        num_outs=5,
    )
    if fusion != 'sum':
        expected['fusion'] = fusion
    assert neck == expected
    warm = the_neck(swap_config(zoo_config(RETINANET), warm_start=True, fusion=fusion))
    assert warm == {**expected, 'warm_start': True, 'bottom_up_norm_cfg': None, 'bottom_up_act_cfg': None}


def test_only_the_fpn_of_several_necks_is_swapped(zoo_config):
    cfg = swap_config(zoo_config('libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py'))
    assert [neck.type for neck in cfg.model.neck] == ['PANetNeck', 'BFP']


def test_a_tracker_is_swapped_in_its_detector(zoo_config):
    swap = plan_swap(zoo_config('qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py'))
    assert swap.models == [('model', 'detector')]
    assert swap.config.model.detector.neck.type == 'PANetNeck'
    assert any(note.startswith('model.detector.init_cfg still is ') for note in swap.notes)


def test_pafpn(zoo_config):
    name = 'pafpn/faster-rcnn_r50_pafpn_1x_coco.py'
    swap = plan_swap(zoo_config(name))
    assert swap.config.model.neck.type == 'PANetNeck' and 'bottom_up_act_cfg' not in swap.config.model.neck
    assert any('PAFPN' in note for note in swap.notes)
    # Its bottom-up path is trained, so it keeps its weights. Only the ReLU that it does not have stays away.
    warm = swap_config(zoo_config(name), warm_start=True).model.neck
    assert warm.bottom_up_act_cfg is None and warm.warm_start and 'bottom_up_norm_cfg' not in warm
    cfg = zoo_config(name)
    cfg.model.neck.conv_cfg = dict(type='Conv2d')
    assert swap_config(cfg, warm_start=True).model.neck.warm_start
    cfg.model.neck.conv_cfg = dict(type='ConvWS')
    with pytest.raises(SwapError, match=r"PAFPN with conv_cfg=\{'type': 'ConvWS'\} cannot start warm"):
        swap_config(cfg, warm_start=True)
    with pytest.raises(SwapError, match='PAFPN'):
        swap_config(zoo_config(name), warm_start=True, fusion='concat')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(neck=dict(in_channels=[8])), r"model\.neck must be a config with a 'type', and is \['in_channels'\]"),
        (dict(neck=['FPN']), r"model\.neck must be a config with a 'type', and is 'FPN'"),
        (dict(roi_head=dict(num=1)), r"model\.roi_head must be .* is \['num'\]"),
        (
            dict(roi_head=dict(type='StandardRoIHead', bbox_roi_extractor=dict(type='X', roi_layer=dict(a=7)))),
            r"model\.roi_head\.bbox_roi_extractor\.roi_layer must be .* is \['a'\]",
        ),
    ],
)
def test_a_part_without_a_type_is_named(change, message):
    model = {**dict(type='FasterRCNN', neck=dict(type='FPN')), **change}
    with pytest.raises(SwapError, match=message):
        plan_swap(Config(dict(model=model)), SwapOptions(roi_head=True))


def test_a_teacher_stays_as_it_is():
    """Its checkpoint is that of an FPN."""
    teacher = dict(model=dict(type='GFL', neck=dict(type='FPN')))
    student = dict(type='KnowledgeDistillationSingleStageDetector', neck=dict(type='FPN'), teacher_config=teacher)
    swap = plan_swap(Config(dict(model=student)))
    assert swap.models == [('model',)] and swap.config.model.neck.type == 'PANetNeck'
    assert swap.config.model.teacher_config == teacher


def test_pafpn_keeps_its_two_finest_levels():
    arguments = dict(in_channels=[8, 16, 32, 64], out_channels=8, num_outs=5)
    cfg = Config(dict(model=dict(type='RetinaNet', neck=dict(type='PAFPN', **arguments))))
    pafpn = MODELS.build(cfg.model.neck).eval()
    panet = MODELS.build(swap_config(cfg, warm_start=True).model.neck).eval()
    carried = carry_weights(pafpn.state_dict(), pafpn, panet, warm_start=False)
    assert not carried.new and set(carried.renamed.values()) == {
        f'pafpn_convs.{i}.conv.{part}' for i in range(3) for part in ('weight', 'bias')
    }
    maps = [torch.randn(1, 8 << i, 32 >> i, 32 >> i) for i in range(4)]
    equal = [torch.allclose(old, new, atol=1e-6) for old, new in zip(pafpn(maps), panet(maps))]
    assert equal == [True, True, False, False, False]


@pytest.mark.parametrize(
    'old, new',
    [
        ('FPN', 'PANetNeck'),
        ('mmdet.FPN', 'mmdet.PANetNeck'),
        ('mmdet.models.necks.FPN', 'mmpanet.models.PANetNeck'),
        (FPN, PANetNeck),
    ],
)
def test_types_keep_their_form(old, new):
    neck = dict(type=old, in_channels=[8, 16], out_channels=8, num_outs=2)
    cfg = Config(dict(model=dict(type='RetinaNet', neck=neck)))
    swapped = swap_config(cfg)
    assert swapped.model.neck.type == new and cfg.model.neck.type == old
    assert type(MODELS.build(swapped.model.neck)) is PANetNeck


@pytest.mark.parametrize(
    'name, why',
    [
        ('detectors/detectors_htc-r50_1x_coco.py', 'RFP stays'),
        ('carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py', 'FPN_CARAFE stays'),
        ('hrnet/fcos_hrnetv2p-w18-gn-head_4xb4-1x_coco.py', 'HRFPN stays'),
        ('nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py', 'NASFPN stays'),
        ('yolox/yolox_s_8xb8-300e_coco.py', 'YOLOXPAFPN stays'),
        ('faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', 'no model in this config has a neck'),
    ],
)
def test_other_necks_are_refused(zoo_config, name, why):
    with pytest.raises(SwapError, match=why):
        swap_config(zoo_config(name))


def test_necks_of_others_are_refused():

    @MODELS.register_module(force=True)
    class FPNWithSomethingMore(FPN):
        pass

    def config(type_):
        return Config(dict(model=dict(type='RetinaNet', neck=dict(type=type_))))

    with pytest.raises(SwapError, match='FPNWithSomethingMore stays, it derives from FPN'):
        swap_config(config('FPNWithSomethingMore'))
    with pytest.raises(SwapError, match='NeckOfMine stays, it is not registered .* custom_imports'):
        swap_config(config('NeckOfMine'))
    with pytest.raises(SwapError, match='it is a PANetNeck already'):
        swap_config(config('PANetNeck'))
    with pytest.raises(SwapError, match=r'PANetNeck already and stays as it is, so warm_start=True has nothing'):
        swap_config(config('PANetNeck'), roi_head=True, warm_start=True)
    with pytest.raises(SwapError, match=r"PANetNeck already .* so fusion='concat' has nothing to change"):
        swap_config(config('PANetNeck'), roi_head=True, fusion='concat')
    with pytest.raises(SwapError, match='has no model'):
        swap_config(Config(dict(train_cfg=dict())))
    # A setting that is not allowed is a ConfigError, but not a SwapError.
    for setting, message in (
        (dict(fusion='mean'), "fusion='mean' must be one of"),
        (dict(sampling_ratio=-1), 'sampling_ratio=-1'),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            swap_config(config('FPN'), **setting)
        assert not isinstance(error.value, SwapError)


@pytest.mark.parametrize(
    'imports, expected',
    [
        (None, dict(imports=['mmpanet'], allow_failed_imports=False)),
        (
            dict(imports=['mine'], allow_failed_imports=True),
            dict(imports=['mine', 'mmpanet'], allow_failed_imports=True),
        ),
        (dict(imports='mine'), dict(imports=['mine', 'mmpanet'])),
        (dict(imports=['mmpanet', 'mine']), dict(imports=['mmpanet', 'mine'])),
    ],
)
def test_custom_imports_are_merged(imports, expected):
    cfg = dict(model=dict(type='RetinaNet', neck=dict(type='FPN')))
    if imports is not None:
        cfg['custom_imports'] = imports
    assert swap_config(Config(cfg)).custom_imports == expected


def test_a_checkpoint_that_the_config_names_is_noted(zoo_config):
    cfg = zoo_config(MASK_RCNN)
    assert not plan_swap(cfg).notes
    cfg.load_from = 'fpn.pth'
    assert any(note.startswith('load_from still is fpn.pth') for note in plan_swap(cfg).notes)


def test_a_checkpoint_of_the_model_around_the_swapped_one_is_noted():
    cfg = load_config('mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py')
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint='semi.pth')
    swap = plan_swap(cfg)
    assert swap.models == [('model', 'detector')]
    assert any(note.startswith('model.init_cfg still is semi.pth') for note in swap.notes)


def test_a_config_that_a_run_has_written(zoo_config, tmp_path):
    """Its folder holds the checkpoints of the old run, and --resume is said of that run."""
    cfg = zoo_config(RETINANET)
    cfg.work_dir, cfg.resume = 'work_dirs/old', True
    cfg.dump(tmp_path / 'old.py')
    swap = plan_swap(tmp_path / 'old.py')
    leave_out_run(swap)
    assert any(note.startswith('work_dir and resume of the old run are left out') for note in swap.notes)
    write_config(swap.config, tmp_path / 'old.py', tmp_path / 'new.py')
    new = load_config(tmp_path / 'new.py')
    assert not new.work_dir and not new.resume
    assert plan_swap(cfg).config.work_dir == 'work_dirs/old'  # a program may set it before


def test_names_of_configs():
    short, full = load_config('mmdet::mask-rcnn_r50_fpn_1x_coco'), load_config(f'mmdet::{MASK_RCNN}')
    assert short.filename == full.filename
    with pytest.raises(ConfigError, match="mmdet::mask-rcnn_r50: 'mmdet' has no such config"):
        load_config('mmdet::mask-rcnn_r50')
    with pytest.raises(ConfigError, match="the package 'mmnothing' is not installed"):
        load_config('mmnothing::mask-rcnn_r50')
    with pytest.raises(ConfigError, match='config nowhere.py: no such file'):
        load_config('nowhere.py')


def test_a_setuptools_that_is_too_new_is_named(monkeypatch):
    def fail(package):
        raise ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources')

    monkeypatch.setattr(configs, 'get_installed_path', fail)
    with pytest.raises(ConfigError, match="mmengine needs pkg_resources.*'setuptools<81'"):
        load_config('mmdet::mask-rcnn_r50_fpn_1x_coco')
    with pytest.raises(ConfigError, match="the package 'mmnothing' is not installed"):
        load_config('mmnothing::mask-rcnn_r50')


def test_a_missing_import_is_named(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['package_of_mine.models'], allow_failed_imports=False)\n")
    with pytest.raises(ConfigError, match='not installed: .*package_of_mine.models'):
        load_config(config)
