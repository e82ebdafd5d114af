# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Training and evaluation as torchrun starts them, on the CPU: two and four processes against one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from mmengine.logging import MMLogger
from process_group import run_in_group
from repository import ROOT
from tiny_training import make_data, tiny_config, write_config

from mmpanet.engine.runner import resume_last
from mmpanet.engine.runner.checking_runner import build_runner, trained_classes
from mmpanet.utils.errors import CheckpointError


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Seven images to train on, five to evaluate: neither can be divided among two or four processes."""
    return make_data(tmp_path_factory.mktemp('data') / 'shapes', num_train=7, num_val=5, empty_fraction=0.0)


@pytest.fixture
def cfg(data, tmp_path):
    cfg = tiny_config(tmp_path / 'tiny.py', data)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.train_dataloader.batch_size = 2
    return cfg


def imported(rank):
    return 'quick_processes' in sys.modules


def test_processes_start_with_everything_imported():
    """Python passes over modules that it cannot import there, without a word."""
    assert run_in_group(1, imported) == [True]


def evaluate(rank, cfg, launcher):
    cfg.launcher = launcher
    return build_runner(cfg).test()


def test_evaluation_sees_every_image_once(cfg, tmp_path):
    """The same predictions, image by image, as of one process, and so the same AP."""
    cfg.model.test_cfg.rcnn.score_thr = 0.01
    cfg.model.test_cfg.rcnn.max_per_img = 10
    torch.manual_seed(0)
    runner = build_runner(cfg)
    runner.model.init_weights()
    checkpoint = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=runner.model.state_dict()), checkpoint)
    cfg.load_from = str(checkpoint)
    metrics, predictions = {}, {}
    for size in (1, 2, 4):
        cfg.test_evaluator.outfile_prefix = str(tmp_path / f'of_{size}')
        cfg.experiment_name = f'evaluate_{size}'
        ranks = run_in_group(size, evaluate, cfg, 'none' if size == 1 else 'pytorch')
        assert all(of_rank == ranks[0] for of_rank in ranks)
        metrics[size] = ranks[0]
        boxes = json.loads((tmp_path / f'of_{size}.bbox.json').read_text())
        predictions[size] = sorted(boxes, key=lambda box: (box['image_id'], -box['score'], box['bbox']))
    assert len({box['image_id'] for box in predictions[1]}) == 5
    for size in (2, 4):
        assert predictions[size] == predictions[1]
        assert metrics[size] == metrics[1]


def train(rank, cfg, launcher='pytorch'):
    cfg.launcher = launcher
    runner = build_runner(cfg)
    runner.train()
    model = getattr(runner.model, 'module', runner.model)
    return runner.iter, {name: value.detach().numpy() for name, value in model.named_parameters()}


@pytest.mark.parametrize('size, batch_size, iterations', [(2, 3, 4), (4, 2, 2)])
def test_training_with_unequal_last_batches(cfg, size, batch_size, iterations):
    """Seven images: the sampler fills up to eight, and two processes take a batch of three and one of one an epoch."""
    cfg.train_dataloader.batch_size = batch_size
    ranks = run_in_group(size, train, cfg)
    for iters, weights in ranks:
        assert iters == iterations
        assert all((weights[name] == ranks[0][1][name]).all() for name in weights)


def resume_from(rank, folders):
    torch.distributed.init_process_group('gloo')
    runner = SimpleNamespace(
        work_dir=folders[rank], _load_from=None, _resume=True, logger=MMLogger.get_current_instance()
    )
    try:
        resume_last(runner)
    except CheckpointError as error:
        return str(error)
    return runner._load_from


def test_machines_resume_from_one_checkpoint_or_not_at_all(tmp_path):
    """Processes that began at different epochs would train without a word."""
    shared, own = (str(tmp_path / name) for name in ('shared', 'own'))
    for folder in (shared, own):
        Path(folder).mkdir()
    torch.save(dict(a=1), f'{shared}/epoch_1.pth')
    assert run_in_group(2, resume_from, [shared, shared]) == [f'{shared}/epoch_1.pth'] * 2
    assert run_in_group(2, resume_from, [own, own]) == [None] * 2
    # The second machine looks for the file of the first one, under its path.
    assert run_in_group(2, resume_from, [shared, own]) == [f'{shared}/epoch_1.pth'] * 2
    expected = f'{shared}/epoch_1.pth: is there for some processes only. Machines that do not share their work folders'
    for message in run_in_group(2, resume_elsewhere, [shared, own]):
        assert message.startswith(expected)


def resume_elsewhere(rank, folders):
    with mock.patch.object(Path, 'is_file', lambda self: rank == 0 and os.path.isfile(self)):
        return resume_from(rank, folders)


def test_sync_bn_on_cpus_is_refused_by_name(cfg):
    cfg.model.neck.norm_cfg = dict(type='SyncBN')
    with pytest.raises(AssertionError, match=r"norm_cfg.type='SyncBN' \(neck.*\) needs GPUs.*num_groups"):
        run_in_group(2, train, cfg, timeout=60)


def test_sync_bn_in_one_process_is_a_bn(cfg):
    cfg.model.neck.norm_cfg = dict(type='SyncBN')
    assert run_in_group(1, train, cfg, 'none')[0][0] == 8


def test_other_launchers_need_gpus(cfg):
    with pytest.raises(AssertionError, match='--launcher slurm needs GPUs'):
        run_in_group(1, train, cfg, 'slurm', timeout=60)


def environment(tmp_path, **variables):
    binaries = tmp_path / 'bin'
    binaries.mkdir(exist_ok=True)
    python = binaries / 'python'
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    return {
        **os.environ,
        'PATH': f'{binaries}:{os.environ["PATH"]}',
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': f'{ROOT}:{os.environ.get("PYTHONPATH", "")}',
        **variables,
    }


@pytest.mark.slow
def test_dist_scripts_with_two_processes(data, tmp_path):
    """What docs/distributed.md says to type."""
    config = write_config(tmp_path / 'tiny.py', data, "train_cfg['max_epochs'] = 1\nlog_level = 'INFO'\n")
    # torchrun needs a number: one below those that the system gives away, and another in each worker of the tests.
    env = environment(tmp_path, PORT=str(20000 + os.getpid() % 10000))
    words = ['bash', ROOT / 'tools/dist_train.sh', config, '2', '--work-dir', tmp_path / 'run']
    result = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    assert checkpoint.exists() and 'Distributed training: True' in result.stdout + result.stderr
    words = ['bash', ROOT / 'tools/dist_test.sh', config, checkpoint, '2', '--work-dir', tmp_path / 'test']
    result = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and 'coco/segm_mAP' in result.stdout + result.stderr, result.stderr


@pytest.mark.parametrize(
    'script, words, expected',
    [
        (
            'dist_train.sh',
            ['CONFIG', '4', '--resume'],
            [
                '-m',
                'torch.distributed.run',
                '--nnodes=2',
                '--node_rank=1',
                '--nproc_per_node=4',
                '--master_addr=10.0.0.1',
                '--master_port=29501',
                '{tools}/train.py',
                'CONFIG',
                '--launcher',
                'pytorch',
                '--resume',
            ],
        ),
        (
            'dist_test.sh',
            ['CONFIG', 'CHECKPOINT', '4', '--out', 'a b.pkl'],
            [
                '-m',
                'torch.distributed.run',
                '--nnodes=2',
                '--node_rank=1',
                '--nproc_per_node=4',
                '--master_addr=10.0.0.1',
                '--master_port=29501',
                '{tools}/test.py',
                'CONFIG',
                'CHECKPOINT',
                '--launcher',
                'pytorch',
                '--out',
                'a b.pkl',
            ],
        ),
        (
            'slurm_train.sh',
            ['PARTITION', 'JOB', 'CONFIG', 'WORK_DIR', '--amp'],
            [
                '--partition=PARTITION',
                '--job-name=JOB',
                '--gres=gpu:4',
                '--ntasks=16',
                '--ntasks-per-node=4',
                '--cpus-per-task=5',
                '--kill-on-bad-exit=1',
                '--quotatype=auto',
                '--time=1:00',
                'python',
                '-u',
                '{tools}/train.py',
                'CONFIG',
                '--work-dir',
                'WORK_DIR',
                '--launcher',
                'slurm',
                '--amp',
            ],
        ),
        (
            'slurm_test.sh',
            ['PARTITION', 'JOB', 'CONFIG', 'CHECKPOINT'],
            [
                '--partition=PARTITION',
                '--job-name=JOB',
                '--gres=gpu:4',
                '--ntasks=16',
                '--ntasks-per-node=4',
                '--cpus-per-task=5',
                '--kill-on-bad-exit=1',
                '--quotatype=auto',
                '--time=1:00',
                'python',
                '-u',
                '{tools}/test.py',
                'CONFIG',
                'CHECKPOINT',
                '--launcher',
                'slurm',
            ],
        ),
    ],
)
def test_command_lines_of_the_scripts(tmp_path, script, words, expected):
    """What they call, word by word, recorded by a python and an srun in its stead."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {
        'PATH': f'{tmp_path}:{os.environ["PATH"]}',
        'NNODES': '2',
        'NODE_RANK': '1',
        'MASTER_ADDR': '10.0.0.1',
        'PORT': '29501',
        'GPUS': '16',
        'GPUS_PER_NODE': '4',
        'SRUN_ARGS': '--quotatype=auto --time=1:00',
    }
    result = subprocess.run(['bash', ROOT / 'tools' / script, *words], env=env, capture_output=True, text=True)
    assert result.stdout.splitlines() == [word.format(tools=ROOT / 'tools') for word in expected]


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_scripts_say_their_usage(script):
    result = subprocess.run(['bash', ROOT / 'tools' / script], capture_output=True, text=True)
    assert result.returncode == 2 and f'Usage: tools/{script}' in result.stderr


@pytest.mark.parametrize(
    'meta, classes',
    [
        (dict(dataset_meta=dict(classes=('a', 'b'))), ('a', 'b')),
        (dict(dataset_meta=[dict(classes=['a', 'b']), dict(classes=['a', 'b'], palette=[])]), ('a', 'b')),
        (dict(dataset_meta=dict(CLASSES=('a', 'b'))), ()),  # of MMDetection 2.x
        (dict(dataset_meta=[]), ()),
        (dict(dataset_meta=None), ()),
        (None, ()),
    ],
)
def test_classes_of_checkpoints_from_elsewhere(meta, classes):
    assert trained_classes(dict(meta=meta)) == classes
