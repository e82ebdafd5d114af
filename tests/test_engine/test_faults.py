# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A full disk, cut-off files, NaN, unreadable images: one clear error each, and the checkpoints of before stay."""

import json
import os
import shutil

import pytest
import torch
from killed_training import Training
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from tiny_training import make_data, run_tool, tiny_config, write_config

from mmdet.apis import DetInferencer
from mmpanet.checkpoints.files import load_untrusted
from mmpanet.checkpoints.whole_files import is_whole, last_whole_checkpoint
from mmpanet.engine.hooks import EvaluateMissedHook, SaveThenRemoveHook
from mmpanet.engine.runner import build_runner
from mmpanet.engine.runner.checkpoint_runner import WholeCheckpointRunner
from mmpanet.utils.errors import CheckpointError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes', num_train=4, num_val=1, empty_fraction=0.0)


@pytest.fixture(scope='module')
def trained(tmp_path_factory, data):
    """A config and the folder of its training: two epochs, a checkpoint each."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder / 'tiny.py', data, "default_hooks['checkpoint'] = dict(max_keep_ckpts=2)\n")
    run_tool('train', config, '--work-dir', folder / 'run')
    return config, folder / 'run'


@pytest.fixture
def work_dir(trained, tmp_path):
    """A copy of that folder, to damage; ``last_checkpoint`` still names the folder it was copied from."""
    folder = tmp_path / 'run'
    shutil.copytree(trained[1], folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def cut(path, share=0.5):
    os.truncate(path, int(path.stat().st_size * share))


def test_resumes_from_the_last_one_that_is_whole(work_dir):
    assert last_whole_checkpoint(work_dir) == str(work_dir / 'epoch_2.pth')
    cut(work_dir / 'epoch_2.pth')
    assert last_whole_checkpoint(work_dir) == str(work_dir / 'epoch_1.pth')
    (work_dir / 'epoch_1.pth').write_bytes(b'')
    assert last_whole_checkpoint(work_dir) is None


def test_resumes_from_its_own_folder(work_dir, tmp_path):
    """A copy of a work folder names the checkpoint of the original, which may be another training by now."""
    copy = tmp_path / 'copy'
    shutil.copytree(work_dir, copy)
    assert (copy / 'last_checkpoint').read_text() == str(work_dir / 'epoch_2.pth')
    assert last_whole_checkpoint(copy) == str(copy / 'epoch_2.pth')
    for path in copy.glob('*.pth'):
        path.unlink()
    assert last_whole_checkpoint(copy) is None


def test_resumes_from_the_out_dir_of_the_checkpoint_hook(work_dir, tmp_path):
    """An earlier run without it may have left a checkpoint of the same name in the work folder."""
    out_dir = tmp_path / 'out_dir' / work_dir.name
    out_dir.mkdir(parents=True)
    shutil.copy(work_dir / 'epoch_2.pth', out_dir)
    (work_dir / 'last_checkpoint').write_text(str(out_dir / 'epoch_2.pth'))
    assert last_whole_checkpoint(work_dir) == str(out_dir / 'epoch_2.pth')
    shutil.move(str(work_dir / 'epoch_1.pth'), str(out_dir))
    (work_dir / 'epoch_2.pth').unlink()
    cut(out_dir / 'epoch_2.pth')
    assert last_whole_checkpoint(work_dir) == str(out_dir / 'epoch_1.pth')


@pytest.mark.parametrize('kind', ['CheckpointHook', 'mmengine.CheckpointHook', 'mmengine.hooks.CheckpointHook', None])
def test_every_spelling_of_the_checkpoint_hook_removes_last(kind, monkeypatch):
    registered = {}
    monkeypatch.setattr(Runner, 'register_default_hooks', lambda self, hooks: registered.update(hooks))
    hook = dict(type=CheckpointHook if kind is None else kind, max_keep_ckpts=2)
    runner = object.__new__(WholeCheckpointRunner)
    runner._hooks = []
    runner.register_default_hooks(dict(checkpoint=hook))
    assert registered == dict(checkpoint=dict(type=SaveThenRemoveHook, max_keep_ckpts=2))
    assert [type(one) for one in runner.hooks] == [EvaluateMissedHook]


@pytest.mark.parametrize('pointer', ['', 'elsewhere/epoch_2.pth', None], ids=['cut off', 'moved', 'not written'])
def test_resumes_without_a_good_pointer(work_dir, pointer):
    path = work_dir / 'last_checkpoint'
    path.unlink() if pointer is None else path.write_text(pointer)
    assert last_whole_checkpoint(work_dir) == str(work_dir / 'epoch_2.pth')


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.9999])
def test_a_cut_off_checkpoint_is_not_whole(work_dir, share):
    assert is_whole(work_dir / 'epoch_1.pth')
    cut(work_dir / 'epoch_1.pth', share)
    assert not is_whole(work_dir / 'epoch_1.pth')


def test_a_changed_byte_is_seen(work_dir):
    path = work_dir / 'epoch_1.pth'
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert not is_whole(path)


def test_resume_goes_on_from_the_whole_one(trained, work_dir):
    cut(work_dir / 'epoch_2.pth')
    first = (work_dir / 'epoch_1.pth').stat().st_mtime_ns
    run_tool('train', trained[0], '--work-dir', work_dir, '--resume')
    assert (work_dir / 'epoch_1.pth').stat().st_mtime_ns == first  # a training from scratch would write it again
    again = load_untrusted(work_dir / 'epoch_2.pth')
    assert again['meta']['epoch'] == 2
    assert {int(state['step']) for state in again['optimizer']['state'].values()} == {2}


def test_resume_without_a_checkpoint_starts_from_the_weights_of_the_config(trained, work_dir, tmp_path):
    """A fine-tuning that is started with ``--resume``, as ``experiments.py`` does, and one that is cut off."""
    start, target = work_dir / 'epoch_1.pth', tmp_path / 'tuned'
    words = [
        trained[0],
        '--work-dir',
        target,
        '--resume',
        '--cfg-options',
        f'load_from={start}',
        'optim_wrapper.optimizer.lr=0',
        'train_cfg.max_epochs=1',
    ]
    run_tool('train', *words)
    tuned = load_untrusted(target / 'epoch_1.pth')
    before = load_untrusted(start)['state_dict']
    parameters = [name for name in before if name.endswith('.weight')]
    assert parameters and all(torch.equal(tuned['state_dict'][name], before[name]) for name in parameters)
    assert {int(state['step']) for state in tuned['optimizer']['state'].values()} == {1}
    words[-1] = 'train_cfg.max_epochs=2'
    first = (target / 'epoch_1.pth').stat().st_mtime_ns
    run_tool('train', *words)
    assert (target / 'epoch_1.pth').stat().st_mtime_ns == first
    again = load_untrusted(target / 'epoch_2.pth')
    assert {int(state['step']) for state in again['optimizer']['state'].values()} == {2}


@pytest.mark.parametrize('way', ['resume', 'load_from', 'test'])
def test_a_named_checkpoint_that_is_cut_off_is_one_line(trained, work_dir, way):
    path = work_dir / 'epoch_1.pth'
    cut(path)
    with pytest.raises(SystemExit, match='checkpoint .*epoch_1.pth: is cut off or damaged'):
        load(way, trained[0], path, work_dir)


def load(way, config, path, work_dir):
    """The four ways to a checkpoint."""
    if way == 'resume':
        run_tool('train', config, '--work-dir', work_dir, '--resume', path)
    elif way == 'load_from':
        run_tool(
            'train', config, '--work-dir', work_dir, '--cfg-options', f'load_from={path}', 'train_cfg.max_epochs=1'
        )
    elif way == 'test':
        run_tool('test', config, path, '--work-dir', work_dir)
    else:
        DetInferencer(str(config), str(path), device='cpu', show_progress=False)


class Hostile:
    def __init__(self, traces):
        self.traces = traces

    def __reduce__(self):
        return os.mkdir, (str(self.traces),)


@pytest.mark.parametrize('way', ['resume', 'load_from', 'test', 'inferencer'])
def test_own_checkpoints_load_again(trained, work_dir, way):
    load(way, trained[0], work_dir / 'epoch_1.pth', work_dir)


@pytest.mark.parametrize('way', ['resume', 'load_from', 'test', 'inferencer'])
def test_hostile_checkpoints_are_refused(trained, work_dir, way):
    """It is a checkpoint in every other respect, and whole."""
    path, traces = work_dir / 'epoch_1.pth', work_dir / 'traces'
    checkpoint = load_untrusted(path)
    checkpoint['message_hub']['runtime_info']['extra'] = Hostile(traces)
    torch.save(checkpoint, path)
    with pytest.raises((SystemExit, CheckpointError), match='epoch_1.pth: is not read, because it holds .*mkdir'):
        load(way, trained[0], path, work_dir)
    assert not traces.exists()


@pytest.mark.parametrize('keep', [1, 2])
def test_full_disk(trained, tmp_path, work_dir, keep):
    """Files may not grow beyond half a checkpoint: the earlier one stays, and there is no half one."""
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    before = (work_dir / 'epoch_1.pth').read_bytes()
    training = Training(
        [
            trained[0],
            '--work-dir',
            work_dir,
            '--resume',
            '--cfg-options',
            f'default_hooks.checkpoint.max_keep_ckpts={keep}',
        ],
        tmp_path / 'log',
        limit=len(before) // 2,
    )
    assert training.wait() == 1
    last_line = training.log.read_text().splitlines()[-1]
    assert 'File too large' in last_line and '--resume goes on from the last one' in last_line
    assert 'Traceback' not in training.log.read_text()
    assert [path.name for path in work_dir.glob('epoch_*')] == ['epoch_1.pth']
    assert (work_dir / 'epoch_1.pth').read_bytes() == before
    run_tool('train', trained[0], '--work-dir', work_dir, '--resume')  # there is room again
    assert is_whole(work_dir / 'epoch_2.pth')


def test_the_best_checkpoint_is_replaced_by_a_whole_one(data, tmp_path):
    """The old best stays until the new one is there, and goes then."""
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_cfg.val_interval = 1
    cfg.default_hooks.checkpoint.update(save_best='coco/segm_mAP', rule='less')
    runner = build_runner(cfg)
    seen = []
    save = type(runner).save_checkpoint

    def save_and_look(out_dir, filename, *args, **kwargs):
        seen.append(sorted(path.name for path in (tmp_path / 'run').glob('*.pth')))
        save(runner, out_dir, filename, *args, **kwargs)

    runner.save_checkpoint = save_and_look
    hook = next(hook for hook in runner.hooks if hasattr(hook, 'save_best'))
    # Two evaluations, each better than all before
    scores = iter([0.5, 0.4])
    runner.val_loop.run = lambda: hook.after_val_epoch(runner, {'coco/segm_mAP': next(scores)})
    runner.train()
    first, second = 'best_coco_segm_mAP_epoch_1.pth', 'best_coco_segm_mAP_epoch_2.pth'
    assert seen == [
        [],
        ['epoch_1.pth'],
        [first, 'epoch_1.pth'],
        [first, 'epoch_1.pth'],
        [first, 'epoch_2.pth'],
        [first, second, 'epoch_2.pth'],
    ]
    assert sorted(path.name for path in (tmp_path / 'run').glob('*.pth')) == [second, 'epoch_2.pth']


def poisoned(cfg, epoch):
    """A runner whose weights are NaN from an epoch on, as after a loss of NaN."""
    runner = build_runner(cfg)

    class PoisonWeights(Hook):
        def after_train_iter(self, runner, *args, **kwargs):
            if runner.epoch + 1 == epoch:
                next(runner.model.parameters()).data.fill_(float('nan'))

    runner.register_hook(PoisonWeights())
    return runner


def test_nan_weights_are_not_saved(data, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    with pytest.raises(
        CheckpointError, match='epoch_2.pth is not saved: the weights have become NaN .* backbone.conv1'
    ):
        poisoned(cfg, epoch=2).train()
    checkpoint = load_untrusted(last_whole_checkpoint(tmp_path / 'run'))
    assert checkpoint['meta']['epoch'] == 1
    assert all(torch.isfinite(value).all() for value in checkpoint['state_dict'].values())


def test_nan_statistics_of_bn_are_not_saved(data, tmp_path):
    """As after a forward pass in half precision that overflowed, whose step the optimizer left out."""
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    runner = build_runner(cfg)
    next(buffer for name, buffer in runner.model.named_buffers() if name.endswith('running_var')).fill_(float('inf'))
    with pytest.raises(CheckpointError, match='a.pth is not saved: .* first backbone.bn1.running_var'):
        runner.save_checkpoint(str(tmp_path), 'a.pth')
    assert not (tmp_path / 'a.pth').exists()


def test_mmdets_hook_ends_a_training_at_the_first_nan_loss(data, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.custom_hooks = [dict(type='CheckInvalidLossHook', interval=1)]
    cfg.model.roi_head.mask_head.loss_mask = dict(type='CrossEntropyLoss', use_mask=True, loss_weight=float('nan'))
    with pytest.raises(AssertionError):
        build_runner(cfg).train()
    assert last_whole_checkpoint(tmp_path / 'run') is None


def test_unreadable_image(trained, work_dir, tmp_path, data):
    """Its header is whole, so only the decoding sees it; MMDetection's loader names the file."""
    broken = tmp_path / 'shapes'
    shutil.copytree(data, broken)
    for path in (broken / 'images').iterdir():
        cut(path)
    before = (work_dir / 'epoch_1.pth').read_bytes()
    config = write_config(tmp_path / 'broken.py', f'{broken}/')
    with pytest.raises(AssertionError, match=r'failed to load image: .*train_\d+.png'):
        run_tool('train', config, '--work-dir', work_dir, '--resume', work_dir / 'epoch_1.pth')
    assert (work_dir / 'epoch_1.pth').read_bytes() == before


def test_annotation_outside_its_image(trained, work_dir, tmp_path, data):
    broken = tmp_path / 'shapes'
    shutil.copytree(data, broken)
    annotations = json.loads((broken / 'train.json').read_text())
    annotations['annotations'][0]['bbox'] = [100, 100, 20, 20]
    (broken / 'train.json').write_text(json.dumps(annotations))
    before = (work_dir / 'epoch_1.pth').read_bytes()
    config = write_config(tmp_path / 'broken.py', f'{broken}/')
    with pytest.raises(SystemExit) as error:
        run_tool('train', config, '--work-dir', work_dir, '--resume', work_dir / 'epoch_1.pth')
    assert 'train.json' in str(error.value) and '100' in str(error.value)
    assert (work_dir / 'epoch_1.pth').read_bytes() == before
