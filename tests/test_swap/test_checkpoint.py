# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import copy
from importlib.util import find_spec
from pathlib import Path

import mmcv
import pytest
import torch
from mmengine.config import Config

from mmdet.registry import MODELS
from mmpanet.ops import winograd
from mmpanet.swap import swap_checkpoint, swap_config, verify
from mmpanet.swap.checkpoint import find_model_of_checkpoint
from mmpanet.swap.verification import generated_image
from mmpanet.swap.warm_start import FC_BRANCH_BIAS
from mmpanet.utils.errors import CheckpointError, ConfigError, DataError


def checkpoint_of(model):
    """A checkpoint as a run of mmengine saves it."""
    return dict(
        state_dict=copy.deepcopy(model.state_dict()),
        meta=dict(epoch=12, cfg='the old one', dataset_meta=dict(classes=('a', 'b', 'c'))),
        optimizer=dict(state={}),
        param_schedulers=[],
        message_hub=dict(),
    )


def load(cfg, checkpoint):
    model = MODELS.build(cfg.model)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    return model.eval()


@pytest.mark.parametrize('fusion', ['sum', 'concat', 'weighted'])
def test_warm_start_has_the_old_levels(small_config, trained_like, fusion):
    cfg = swap_config(small_config, warm_start=True, fusion=fusion)
    checkpoint, carried = swap_checkpoint(checkpoint_of(trained_like), small_config, cfg)
    swapped = load(cfg, checkpoint)
    assert not carried.renamed and not carried.missing and not carried.unexpected
    assert set(carried.kept) == set(trained_like.state_dict())
    assert all(name.startswith('neck.') for name in carried.new) and carried.new
    image = torch.randn(1, 3, 64, 96)
    for old, new in zip(trained_like.extract_feat(image), swapped.extract_feat(image)):
        assert torch.equal(old, new)


@pytest.mark.parametrize('roi_head_only', [False, True])
def test_the_checkpoint_of_a_swap_in_two_steps(small_config, trained_like, roi_head_only):
    """First the neck and a training, then the RoI head: what the new path has learned stays."""
    with_neck = swap_config(small_config)
    first, _ = swap_checkpoint(checkpoint_of(trained_like), small_config, with_neck)
    state = {name: value + 1 for name, value in first['state_dict'].items()}
    ema = {f'module.{name}': value + 1 for name, value in state.items()}
    trained = dict(state_dict=state, ema_state_dict=dict(steps=torch.tensor(3), **ema))
    cfg = swap_config(with_neck, roi_head=not roi_head_only, roi_head_only=roi_head_only)
    swapped, carried = swap_checkpoint(trained, with_neck, cfg)
    load(cfg, swapped)
    path = [name for name in state if name.startswith(('neck.bottom_up_convs.', 'neck.downsample_convs.'))]
    assert len(path) == 12 and not any(name.startswith('neck.') for name in carried.new)
    for name in path:
        assert torch.equal(swapped['state_dict'][name], state[name])
        assert torch.equal(swapped['ema_state_dict'][f'module.{name}'], state[name] + 1)


def test_what_the_checkpoint_lacks_is_initialized_as_the_config_says(small_config, trained_like):
    checkpoint = checkpoint_of(trained_like)
    lacking = [name for name in checkpoint['state_dict'] if name.startswith(('rpn_head.', 'roi_head.mask_head.'))]
    for name in lacking:
        del checkpoint['state_dict'][name]
    small_config.model.rpn_head.init_cfg = dict(type='Constant', layer='Conv2d', val=0.25, bias=0.5)
    cfg = swap_config(small_config)
    swapped, carried = swap_checkpoint(checkpoint, small_config, cfg)
    assert carried.missing == lacking
    load(cfg, swapped)
    state = swapped['state_dict']
    assert (state['rpn_head.rpn_conv.weight'] == 0.25).all() and (state['rpn_head.rpn_conv.bias'] == 0.5).all()
    assert (state['roi_head.mask_head.conv_logits.bias'] == 0).all()  # FCNMaskHead's own rule


def test_a_part_whose_weights_come_from_another_file_is_not_drawn_at_random(small_config, trained_like):
    small_config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    cfg, checkpoint = swap_config(small_config), checkpoint_of(trained_like)
    swap_checkpoint(checkpoint, small_config, cfg)
    for name in [name for name in checkpoint['state_dict'] if name.startswith('backbone.')]:
        del checkpoint['state_dict'][name]
    with pytest.raises(CheckpointError, match=r'no weight of backbone, which the config takes from backbone\.init_cfg'):
        swap_checkpoint(checkpoint, small_config, cfg)


def test_new_layers_that_normalize_their_weights_start_as_from_scratch(small_config):
    """ConvAWS replaces gamma and beta as it loads, if they are not in the file."""
    small_config.model.neck.conv_cfg = dict(type='ConvAWS')
    old = MODELS.build(small_config.model)
    swapped, carried = swap_checkpoint(checkpoint_of(old), small_config, swap_config(small_config))
    gammas = [name for name in carried.new if name.endswith('weight_gamma')]
    assert gammas and all((swapped['state_dict'][name] == 1).all() for name in gammas)


def test_cold_start_carries_everything_too(small_config, trained_like):
    cfg = swap_config(small_config)
    checkpoint, _ = swap_checkpoint(checkpoint_of(trained_like), small_config, cfg)
    new = checkpoint['state_dict']
    assert all(torch.equal(value, new[name]) for name, value in trained_like.state_dict().items())
    assert new['neck.bottom_up_convs.0.conv.weight'].abs().sum() > 0


@pytest.mark.parametrize('warm_start', [False, True])
def test_each_swap_gives_the_same_weights(small_config, trained_like, warm_start, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', None)  # the numbers of GPUs go on too
    cfg = swap_config(small_config, warm_start=warm_start, roi_head=True)
    checkpoint, swapped = checkpoint_of(trained_like), []
    for seed in (1, 2):  # whatever the program did before
        torch.default_generator.manual_seed(seed)
        expected = torch.rand(1, generator=torch.Generator().manual_seed(seed))
        swapped.append(swap_checkpoint(checkpoint, small_config, cfg)[0]['state_dict'])
        assert torch.equal(torch.rand(1), expected)  # the numbers of the program go on as without the swap
    first, second = swapped
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize('neck', ['FPN', 'PAFPN'])
@pytest.mark.parametrize('warm_start', [True, False])
def test_fully_connected_fusion_starts_without_an_effect(small_config, neck, warm_start):
    small_config.model.neck.type = neck
    old = MODELS.build(small_config.model)
    cfg = swap_config(small_config, roi_head=True, warm_start=warm_start)
    state = swap_checkpoint(checkpoint_of(old), small_config, cfg)[0]['state_dict']
    assert state['roi_head.mask_head.mask_fc.weight'].any() != warm_start


@pytest.mark.parametrize('norm_cfg', [None, dict(type='GN', num_groups=4)])
@pytest.mark.parametrize('bbox_head', ['Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead'])
def test_roi_heads_agree_where_levels_do(small_config, norm_cfg, bbox_head):
    """Each level gets the first layer of the old head, so equal maps on all levels give the old outputs."""
    roi_head = small_config.model.roi_head
    roi_head.bbox_head.update(type=bbox_head, conv_out_channels=16)
    for head in (roi_head.bbox_head, roi_head.mask_head):
        head.norm_cfg = norm_cfg
    old = MODELS.build(small_config.model)
    cfg = swap_config(small_config, roi_head=True, warm_start=True)
    checkpoint, carried = swap_checkpoint(checkpoint_of(old), small_config, cfg)
    new = load(cfg, checkpoint)
    old.eval()
    first = 'shared_fcs.0.' if bbox_head == 'Shared2FCBBoxHead' else 'shared_convs.0.'
    for level in range(4):
        prefix = f'roi_head.bbox_head.{first}levels.{level}.'
        names = [name for name in carried.renamed if name.startswith(prefix)]
        assert names and all(carried.renamed[name] == name.replace(f'levels.{level}.', '') for name in names)

    grids = torch.randn(6, 16, 7, 7)
    for before, after in zip(
        old.roi_head.bbox_head(grids), new.roi_head.bbox_head(grids[:, None].expand(-1, 4, -1, -1, -1))
    ):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    grids = torch.randn(6, 16, 14, 14)
    before, after = old.roi_head.mask_head(grids), new.roi_head.mask_head(grids[:, None].expand(-1, 4, -1, -1, -1))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@pytest.mark.parametrize('num_levels', [1, 4])
def test_heads_of_panets_that_were_trained(small_config, num_levels):
    """The first layer of a head with one level is copied to all levels. A head with all levels keeps its layers."""
    roi_head = small_config.model.roi_head
    roi_head.bbox_head.update(type='PANetShared2FCBBoxHead', num_levels=num_levels)
    roi_head.mask_head.update(type='FCFusionMaskHead', num_levels=num_levels)
    if num_levels == 4:
        roi_head.type = 'PANetRoIHead'
        for branch in ('bbox', 'mask'):
            roi_head[f'{branch}_roi_extractor'].type = 'AdaptiveFeaturePooling'
    old = MODELS.build(small_config.model).state_dict()
    cfg = swap_config(small_config, roi_head=num_levels == 1, warm_start=True)
    checkpoint, carried = swap_checkpoint(dict(state_dict=old), small_config, cfg)
    new = load(cfg, checkpoint).state_dict()
    assert all(name.startswith('neck.') for name in carried.new)
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    for layer in ('bbox_head.shared_fcs.0', 'mask_head.convs.0'):
        for level in range(4):
            prefix = f'roi_head.{layer}.levels.'
            names = [name for name in new if name.startswith(f'{prefix}{level}.')]
            assert names
            for name in names:
                source = name if num_levels == 4 else name.replace(f'{prefix}{level}.', f'{prefix}0.')
                assert torch.equal(new[name], old[source])


def test_hidden_fc_branch_learns(small_config, trained_like):
    cfg = swap_config(small_config, roi_head=True, warm_start=True)
    checkpoint, _ = swap_checkpoint(checkpoint_of(trained_like), small_config, cfg)
    head = load(cfg, checkpoint).roi_head.mask_head
    assert torch.all(head.mask_fc.weight == 0) and torch.all(head.mask_fc.bias == FC_BRANCH_BIAS)
    grids = torch.randn(3, 4, 16, 14, 14)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for layer in (head.mask_fc, head.conv5_fc.conv):  # the convolutions learn as soon as the fc is not zero
        optimizer.zero_grad()
        head(grids).square().sum().backward()
        assert layer.weight.grad.abs().sum() > 0
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1e-3)
        optimizer.step()


def test_what_belongs_to_the_run_stays_behind(small_config, trained_like, tmp_path):
    cfg = swap_config(small_config)
    old = checkpoint_of(trained_like)
    before = copy.deepcopy(old)
    new, _ = swap_checkpoint(old, small_config, cfg, out=tmp_path / 'new.pth')
    assert new.keys() == {'state_dict', 'meta'}
    assert new['meta']['dataset_meta'] == old['meta']['dataset_meta'] and new['meta']['epoch'] == 12
    assert 'PANetNeck' in new['meta']['cfg']
    assert old.keys() == before.keys() and old['meta'] == before['meta'], 'the input was changed'
    assert all(torch.equal(value, before['state_dict'][name]) for name, value in old['state_dict'].items())
    saved = torch.load(tmp_path / 'new.pth', weights_only=True)
    load(cfg, saved)


def test_files_and_bare_state_dicts(small_config, trained_like, tmp_path):
    torch.save(trained_like.state_dict(), tmp_path / 'bare.pth')
    cfg = swap_config(small_config, warm_start=True)
    checkpoint, _ = swap_checkpoint(tmp_path / 'bare.pth', small_config, cfg)
    assert checkpoint.keys() == {'state_dict'}
    load(cfg, checkpoint)
    no_meta = dict(meta=None, state_dict=trained_like.state_dict())
    assert swap_checkpoint(no_meta, small_config, cfg)[0]['meta'] is None


@pytest.mark.parametrize('warm_start', [False, True])
def test_averaged_weights(small_config, trained_like, warm_start):
    """The weights of EMAHook are swapped like the others, and have the same new parts."""
    old = checkpoint_of(trained_like)
    average = {
        f'module.{name}': value + 1 if value.is_floating_point() else value for name, value in old['state_dict'].items()
    }
    old['ema_state_dict'] = {**average, 'steps': torch.tensor(7)}
    cfg = swap_config(small_config, roi_head=True, warm_start=warm_start)
    new, carried = swap_checkpoint(old, small_config, cfg)
    state, ema = new['state_dict'], new['ema_state_dict']
    assert ema.keys() == {f'module.{name}' for name in state} | {'steps'} and ema['steps'] == 7
    for name in carried.new:
        assert torch.equal(ema[f'module.{name}'], state[name]), name
    for name in (
        'neck.lateral_convs.0.conv.weight',
        'roi_head.bbox_head.shared_fcs.0.levels.2.weight',
        'roi_head.mask_head.conv_logits.bias',
    ):
        torch.testing.assert_close(ema[f'module.{name}'], state[name] + 1)


def test_model_of_a_checkpoint():
    detector = dict(type='FasterRCNN', neck=dict(type='PANetNeck'))
    reid = dict(type='BaseReID', neck=dict(type='GlobalAveragePooling'))
    tracker = Config(dict(model=dict(type='DeepSORT', reid=reid, detector=detector)))
    assert find_model_of_checkpoint({'neck.lateral_convs.0.conv.weight': 0}, tracker) == ('model', 'detector')
    assert find_model_of_checkpoint({'detector.neck.lateral_convs.0.conv.weight': 0}, tracker) == ('model',)
    assert find_model_of_checkpoint({'student.neck.lateral_convs.0.conv.weight': 0}, tracker) == ('model',)
    assert find_model_of_checkpoint({'neck.lateral_convs.0.conv.weight': 0}, Config(dict(model=detector))) == ('model',)
    wrapper = Config(dict(model=dict(type='MMDetWrapper', cfg=detector)))
    assert find_model_of_checkpoint({'neck.lateral_convs.0.conv.weight': 0}, wrapper) == ('model', 'cfg')
    assert find_model_of_checkpoint({'wrapped_model.neck.lateral_convs.0.conv.weight': 0}, wrapper) == ('model',)


def test_checkpoints_of_other_models_are_refused(small_config, trained_like):
    cfg = swap_config(small_config)
    with pytest.raises(CheckpointError, match='has no weight of this config'):
        swap_checkpoint(dict(state_dict={'something.weight': torch.zeros(2, 2)}), small_config, cfg)
    other = copy.deepcopy(small_config)
    other.model.roi_head.bbox_head.num_classes = 5
    with pytest.raises(CheckpointError, match='does not fit the config'):
        swap_checkpoint(checkpoint_of(trained_like), other, cfg)
    with pytest.raises(ConfigError, match='not a swap of the old one'):
        swap_checkpoint(checkpoint_of(trained_like), small_config, swap_config(other))


def test_a_part_of_another_model_is_refused(small_config, trained_like):
    """Its weights would be random, and the swapped model would not start as the old one."""
    cfg = swap_config(small_config, roi_head=True)
    swapped = swap_checkpoint(checkpoint_of(trained_like), small_config, cfg)[0]
    message = 'another model: its roi_head has roi_head.bbox_head.shared_fcs.0.levels.0.*, and that of the old config'
    with pytest.raises(CheckpointError, match=message):
        swap_checkpoint(swapped, small_config, cfg)


def test_files_that_cannot_be_used(small_config, trained_like, tmp_path):
    cfg, old = swap_config(small_config), tmp_path / 'old.pth'
    with pytest.raises(CheckpointError, match='there is no checkpoint .*old.pth'):
        swap_checkpoint(old, small_config, cfg)
    torch.save(checkpoint_of(trained_like), old)
    with pytest.raises(CheckpointError, match='old.pth is the checkpoint to swap itself'):
        swap_checkpoint(old, small_config, cfg, old)
    with pytest.raises(DataError, match='there is no image nowhere.png'):
        verify(small_config, cfg, image='nowhere.png')


def test_a_failed_write_leaves_the_old_file(small_config, trained_like, tmp_path, monkeypatch):
    out = tmp_path / 'new.pth'
    out.write_text('before')

    def fails_in_the_middle(path, content):
        with open(path, 'w') as file:
            file.write('half')
        raise OSError('disk full')

    monkeypatch.setattr(Path, 'write_bytes', fails_in_the_middle)
    with pytest.raises(OSError, match='disk full'):
        swap_checkpoint(checkpoint_of(trained_like), small_config, swap_config(small_config), out)
    assert out.read_text() == 'before' and [path.name for path in tmp_path.iterdir()] == ['new.pth']


def test_gaps_and_surplus_are_told(small_config, trained_like):
    checkpoint = checkpoint_of(trained_like)
    checkpoint['state_dict'].pop('rpn_head.rpn_cls.bias')
    checkpoint['state_dict']['auxiliary.weight'] = torch.zeros(1)
    _, carried = swap_checkpoint(checkpoint, small_config, swap_config(small_config))
    assert carried.missing == ['rpn_head.rpn_cls.bias'] and carried.unexpected == ['auxiliary.weight']
    assert 'rpn_head.rpn_cls.bias' in carried.report() and 'auxiliary.weight' in carried.report()


def test_a_part_that_is_not_registered(small_config, trained_like):
    cfg = copy.deepcopy(small_config)
    cfg.model.backbone.type = 'BackboneOfMine'
    with pytest.raises(ConfigError, match='BackboneOfMine .* custom_imports'):
        swap_checkpoint(checkpoint_of(trained_like), cfg, swap_config(cfg))


def test_a_part_that_does_not_take_its_arguments(small_config, trained_like):
    cfg = copy.deepcopy(small_config)
    cfg.model.rpn_head.argument_of_mine = 1
    with pytest.raises(ConfigError, match="the config's model cannot be built: .*argument_of_mine"):
        swap_checkpoint(checkpoint_of(trained_like), cfg, swap_config(cfg))


def test_verify_does_not_depend_on_how_this_processor_convolves(small_config, monkeypatch):
    monkeypatch.setattr(winograd, 'SMALLEST_KERNEL', 1)
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 0)
    cfg = swap_config(small_config, warm_start=True)
    macs = []
    for prefers_winograd in (True, False):
        monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', prefers_winograd)
        verification = verify(small_config, cfg, runs=1)
        assert {found for _, _, found in verification.differences.values()} == {0}
        macs.append(verification.after.macs)
    assert macs[0] == macs[1]


def test_verify(small_config, trained_like, tmp_path):
    torch.save(checkpoint_of(trained_like), tmp_path / 'old.pth')
    mmcv.imwrite(generated_image(96, 128).permute(1, 2, 0).numpy(), str(tmp_path / 'image.png'))
    kwargs = dict(checkpoint=tmp_path / 'old.pth', image=tmp_path / 'image.png', runs=1)
    neck = verify(small_config, swap_config(small_config, warm_start=True), **kwargs)
    assert {found for _, _, found in neck.differences.values()} == {0}
    assert {name.partition('[')[0] for name in neck.differences} == {
        'neck',
        'rpn_head',
        'roi_head.bbox_head',
        'roi_head.mask_head',
        'pred_instances.bboxes',
        'pred_instances.scores',
        'pred_instances.labels',
        'pred_instances.masks',
    }
    assert neck.after.parameters > neck.before.parameters
    if find_spec('torch.utils.flop_counter'):
        assert neck.after.macs > neck.before.macs > 0
    report = neck.report()
    assert 'neck[4]' in report and 'parameters (M)' in report and 'The boxes differ' not in report

    cfg = swap_config(small_config, warm_start=True, roi_head=True)
    whole = verify(small_config, cfg, **kwargs)
    same = {
        name: difference
        for name, (_, _, difference) in whole.differences.items()
        if name.startswith(('neck', 'rpn_head'))
    }
    assert len(same) == 15 and set(same.values()) == {0.0}
    assert whole.differences['roi_head.bbox_head[0]'][2] > 0, 'near, not equal: every RoI sees all levels'
