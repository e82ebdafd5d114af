# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from repository import ROOT

from mmpanet.models import PANetNeck
from mmpanet.swap import swap_config, write_config
from mmpanet.swap.written_config import check_config_target, config_diff
from mmpanet.utils.configs import config_path, load_config
from mmpanet.utils.errors import ConfigError

MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'


def written(name, tmp_path, **kwargs):
    """Write a swapped config; returns its text, the loaded config and the config that was written."""
    out = tmp_path / 'swapped.py'
    cfg = swap_config(name, **kwargs)
    text = write_config(cfg, name, out)
    assert out.read_text() == text
    return text, Config.fromfile(out), cfg


def test_neck_alone(tmp_path):
    text, loaded, cfg = written(MASK_RCNN, tmp_path)
    assert text == (
        f"_base_ = '{MASK_RCNN}'\n\n"
        "custom_imports = dict(imports=['mmpanet'], allow_failed_imports=False)\n\n"
        "model = dict(neck=dict(type='PANetNeck'))\n"
    )
    assert loaded.model.neck == cfg.model.neck
    assert loaded.train_dataloader.dataset.type == 'CocoDataset', 'the rest is inherited'


def test_the_swap_that_was_trained():
    """A swapped config of the results equals what the tool makes of the FPN's config."""
    name = 'configs/dsb2018/ablation/mask-rcnn_r18_{}_zoom-12e_dsb2018.py'
    ours = Config.fromfile(ROOT / name.format('panet-swapped'))
    swapped = swap_config(str(ROOT / name.format('fpn')), roi_head=True, warm_start=True)
    assert ours.model == swapped.model and ours.train_dataloader == swapped.train_dataloader


def test_stages_of_a_cascade_are_not_repeated(tmp_path):
    text, loaded, cfg = written('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', tmp_path, roi_head=True)
    assert "dict(stage, type='PANetShared2FCBBoxHead')" in text and len(text.splitlines()) < 30
    heads = loaded.model.roi_head.bbox_head
    assert [head.bbox_coder.target_stds for head in heads] == [
        head.bbox_coder.target_stds for head in cfg.model.roi_head.bbox_head
    ]


def test_list_of_necks(tmp_path):
    text, loaded, _ = written('mmdet::dyhead/atss_r50_fpn_dyhead_1x_coco.py', tmp_path, fusion='weighted')
    assert "dict(_base_.model.neck[0], type='PANetNeck', fusion='weighted'), _base_.model.neck[1]" in ' '.join(
        text.split()
    )
    assert [neck.type for neck in loaded.model.neck] == ['PANetNeck', 'DyHead']


@pytest.mark.parametrize('new_style', [False, True])
def test_a_folder_that_is_a_link(tmp_path, new_style):
    """A base is found from where the link leads to."""
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'far' / 'away').mkdir(parents=True)
    (tmp_path / 'mine' / 'link').symlink_to(tmp_path / 'far' / 'away')
    base = tmp_path / 'mine' / 'base.py'
    fpn = "dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=2)"
    text = f"model = dict(type='RetinaNet', neck={fpn})\n"
    if new_style:
        text = text.replace("'FPN'", 'FPN').replace("'RetinaNet'", 'RetinaNet')
        text = f'from mmdet.models import FPN, RetinaNet\n\n{text}'
    base.write_text(text)
    written_text, loaded, _ = written(base, tmp_path / 'mine' / 'link')
    assert ('from ...mine.base import *' if new_style else "_base_ = '../../mine/base.py'") in written_text
    assert 'PANetNeck' in str(loaded.model.neck.type)


def test_a_file_that_is_a_link(tmp_path):
    """It has two folders, and gives the same config from both."""
    (tmp_path / 'far').mkdir()
    target = tmp_path / 'far' / 'target.py'
    target.write_text('')
    (tmp_path / 'swapped.py').symlink_to(target)
    base = tmp_path / 'base.py'
    neck = dict(type='FPN', in_channels=[8, 16], out_channels=8, num_outs=2)
    base.write_text(f"model = dict(type='RetinaNet', neck={neck})\n")
    text, loaded, cfg = written(base, tmp_path)
    assert '_base_' not in text and (tmp_path / 'swapped.py').is_symlink()
    assert loaded.model == Config.fromfile(target).model == cfg.model


def test_relative_base_and_removed_keys(tmp_path):
    (tmp_path / 'old').mkdir()
    base = tmp_path / 'old' / 'config.py'
    base.write_text(
        "custom_imports = dict(imports=['math'], allow_failed_imports=False)\n"
        'finest = 112\n'
        "layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)\n"
        "head = {'type': 'Shared2FCBBoxHead', 'in_channels': 8}\n"
        "model = dict(type='FasterRCNN', neck=dict(type='FPN', in_channels=[8, 16]),\n"
        "             roi_head=dict(type='StandardRoIHead', bbox_head=head, bbox_roi_extractor=dict(\n"
        "                 type='SingleRoIExtractor', roi_layer=layer, out_channels=8,\n"
        '                 featmap_strides=[4, 8], finest_scale=finest)))\n'
    )
    text, loaded, _ = written(base, tmp_path, roi_head=True)
    assert "_base_ = 'old/config.py'" in text and '_delete_=True' in text
    assert loaded.custom_imports.imports == ['math', 'mmpanet']
    assert 'finest_scale' not in loaded.model.roi_head.bbox_roi_extractor
    assert loaded.model.roi_head.bbox_head.num_levels == 2


def test_installed_configs_are_named_by_package(tmp_path):
    text, *_ = written(config_path(MASK_RCNN), tmp_path)
    assert text.startswith(f"_base_ = '{MASK_RCNN}'")


def test_keys_that_are_no_names(tmp_path):
    base = tmp_path / 'config.py'
    base.write_text(
        "neck = dict(type='FPN')\nmodel = dict(type='RetinaNet', neck=neck, parts={'a.b': dict(neck=neck)})\n"
    )
    text, loaded, _ = written(base, tmp_path)
    assert "{'a.b': dict(neck=dict(type='PANetNeck'))}" in text
    assert loaded.model.parts['a.b'].neck.type == 'PANetNeck'


def test_new_style_config(tmp_path):
    base = tmp_path / 'retinanet.py'
    base.write_text(
        'from mmdet.models import FPN, RetinaNet\n'
        'model = dict(type=RetinaNet,\n'
        '             neck=dict(type=FPN, in_channels=[8, 16], out_channels=8, num_outs=2))\n'
    )
    assert swap_config(load_config(base)).model.neck.type is PANetNeck
    text, loaded, _ = written(base, tmp_path, warm_start=True)
    assert 'from .retinanet import *' in text and 'from mmpanet.models import PANetNeck' in text
    assert 'custom_imports' not in text
    assert loaded.model.neck.type is PANetNeck and loaded.model.neck.warm_start

    # A file with this name cannot be imported, so the whole config is written, with the paths of classes.
    hyphened = tmp_path / 'retina-net.py'
    hyphened.write_text(base.read_text())
    text, loaded, _ = written(hyphened, tmp_path)
    assert "type='mmpanet.models.PANetNeck'" in text
    assert loaded.model.neck.in_channels == [8, 16]


def test_a_config_with_settings_of_its_own(tmp_path):
    """Changes made by hand before the swap are written too."""
    cfg = load_config(MASK_RCNN)
    cfg.merge_from_dict({'model.roi_head.bbox_head.num_classes': 3, 'train_cfg.max_epochs': 2})
    text = write_config(swap_config(cfg), MASK_RCNN, tmp_path / 'swapped.py')
    assert 'bbox_head=dict(num_classes=3)' in text and 'train_cfg = dict(max_epochs=2)' in text


def test_no_config_is_overwritten_by_its_own_swap(tmp_path):
    base = tmp_path / 'config.py'
    base.write_text("model = dict(type='RetinaNet', neck=dict(type='FPN'))\n")
    before = base.read_text()
    with pytest.raises(ConfigError, match='is the config to swap itself'):
        write_config(swap_config(base), base, base)
    with pytest.raises(ConfigError, match=r'must be a \.py file'):
        write_config(swap_config(base), base, tmp_path / 'config.yml')
    assert base.read_text() == before


@pytest.mark.parametrize('new_style', [False, True])
def test_no_config_is_overwritten_by_the_swap_of_its_child(tmp_path, new_style):
    lines = {'model': "model = dict(type='RetinaNet', neck=dict(type='FPN'))\n"}
    for name, base in (('parent', 'model'), ('child', 'parent')):
        lines[name] = f"_base_ = './{base}.py'\n"
        if new_style:
            lines[name] = f'from mmengine.config import read_base\n\nwith read_base():\n    from .{base} import *\n'
    for name, text in lines.items():
        (tmp_path / f'{name}.py').write_text(text)
    for name in ('parent', 'model'):
        with pytest.raises(ConfigError, match=f'{name}.py: the config to swap inherits from it'):
            check_config_target(tmp_path / f'{name}.py', tmp_path / 'child.py')
    check_config_target(tmp_path / 'other.py', tmp_path / 'child.py')
    (tmp_path / 'other.py').touch()
    check_config_target(tmp_path / 'other.py', tmp_path / 'child.py')


def test_what_cannot_be_written_leaves_no_file(tmp_path):
    base = tmp_path / 'config.py'
    base.write_text("model = dict(type='RetinaNet', neck=dict(type='FPN'))\n")
    cfg = swap_config(base)
    cfg.model.test_cfg = object()
    with pytest.raises(ConfigError, match='contains values that a config file cannot contain'):
        write_config(cfg, base, tmp_path / 'swapped.py')
    assert [path.name for path in Path(tmp_path).iterdir()] == ['config.py']


def test_numbers_without_a_form_in_python(tmp_path):
    (tmp_path / 'config.py').write_text("model = dict(type='RetinaNet', neck=dict(type='FPN'))\n")
    cfg = swap_config(tmp_path / 'config.py')
    cfg.model.test_cfg = dict(score_thr=float('inf'))
    with pytest.raises(ConfigError, match='contains values that a config file cannot contain'):
        write_config(cfg, tmp_path / 'config.py', tmp_path / 'swapped.py')
    assert not (tmp_path / 'swapped.py').exists()
    cfg.model.test_cfg = dict(score_thr=np.float32(0.5))  # np.float32(0.5) is no name in a config
    write_config(cfg, tmp_path / 'config.py', tmp_path / 'swapped.py')
    assert Config.fromfile(tmp_path / 'swapped.py').model.test_cfg.score_thr == 0.5


def test_keys_with_dots_get_the_whole_config(tmp_path):
    (tmp_path / 'config.py').write_text(
        "model = dict(type='A', parts={'a.b': dict(type='B', neck=[dict(type='FPN'), dict(type='Other')])})\n"
    )
    cfg = swap_config(tmp_path / 'config.py')
    text = write_config(cfg, tmp_path / 'config.py', tmp_path / 'swapped.py')
    assert '_base_' not in text
    assert Config.fromfile(tmp_path / 'swapped.py').model.parts['a.b'].neck[0].type == 'PANetNeck'


def test_configs_of_packages_that_mmengine_does_not_know(tmp_path):
    """mmengine finds ``name::`` of OpenMMLab's packages only."""
    base = tmp_path / 'site-packages' / 'mmpanet' / '.mim' / 'configs' / 'a' / 'config.py'
    base.parent.mkdir(parents=True)
    base.write_text("model = dict(type='RetinaNet', neck=dict(type='FPN'))\n")
    text = write_config(swap_config(base), base, tmp_path / 'swapped.py')
    assert text.startswith("_base_ = 'site-packages/mmpanet/.mim/configs/a/config.py'\n")
    assert Config.fromfile(tmp_path / 'swapped.py').model.neck.type == 'PANetNeck'


def test_a_new_style_config_with_names_as_types(tmp_path):
    (tmp_path / 'base.py').write_text("model = dict(type='RetinaNet', neck=dict(type='PAFPN', num_outs=5))\n")
    (tmp_path / 'config.py').write_text(
        'from mmengine.config import read_base\n\nwith read_base():\n    from .base import *\n\n'
        "model.update(dict(neck=dict(type='FPN')))\n"
    )
    write_config(swap_config(tmp_path / 'config.py'), tmp_path / 'config.py', tmp_path / 'swapped.py')
    assert 'from mmpanet.models import PANetNeck' in (tmp_path / 'swapped.py').read_text()
    assert Config.fromfile(tmp_path / 'swapped.py').model.neck.type is PANetNeck


def test_diff_fits_a_screen(zoo_config):
    name = MASK_RCNN.partition('::')[2]
    for kwargs, lines in ((dict(), 24), (dict(roi_head=True, warm_start=True), 50)):
        cfg = zoo_config(name)
        diff = config_diff(cfg, swap_config(cfg, **kwargs)).splitlines()
        assert len(diff) <= lines
        assert "-        type='FPN')," in diff and any(line.startswith("+        type='PANetNeck'") for line in diff)


def test_a_folder_that_no_name_can_have(tmp_path):
    """mmengine does not accept a ``+`` in a ``package::name``."""
    text, loaded, cfg = written('mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py', tmp_path)
    assert 'mmdet::' not in text and loaded.model.neck == cfg.model.neck
