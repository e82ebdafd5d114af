# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What `make train` starts, recorded by a python and a mim in their stead."""

import os
import subprocess

import pytest
from mmengine.config import Config
from repository import ROOT

DEFAULT = 'mask-rcnn_r18_panet_shapes.py'
OTHER = 'mask-rcnn_r18_fpn_shapes.py'
TWO_PROCESSES = ['--launcher', 'pytorch', '--gpus', '2', '--cfg-options', 'train_dataloader.batch_size=2']


def make_train(folder, cores, *words, **env):
    """The words and the thread counts that mim is given, on a machine with so many cores (0: with a GPU)."""
    bin_dir, work_dir = folder / 'venv/bin', folder / 'work'
    bin_dir.mkdir(parents=True)
    work_dir.mkdir()
    config = next((word[len('CONFIG=') :] for word in words if word.startswith('CONFIG=')), f'configs/shapes/{DEFAULT}')
    (work_dir / 'finished_of_another_config').touch()
    recorder = f'#!/bin/sh\nprintf "%s\\n" "$OMP_NUM_THREADS" "$MKL_NUM_THREADS" "$@" > {folder}/record\n'
    for name, text in {'python': f'#!/bin/sh\necho {cores}\n', 'mim': recorder}.items():
        (bin_dir / name).write_text(text)
        (bin_dir / name).chmod(0o755)
    ready = [f'--assume-old={path}' for path in (f'{folder}/venv/.mmpanet/package', 'data/shapes/.made')]
    places = [f'VENV={folder}/venv', f'WORK_DIR={work_dir}']
    ours = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'CONFIG', 'MAKEFLAGS', 'MAKEOVERRIDES', 'MFLAGS')
    inherited = {key: value for key, value in os.environ.items() if key not in ours}
    subprocess.run(
        ['make', '--always-make', *ready, *places, *words, f'{work_dir}/finished_{config.replace("/", "_")}'],
        cwd=ROOT,
        env={**inherited, **env},
        check=True,
        capture_output=True,
        text=True,
    )
    assert [path.name for path in work_dir.glob('finished*')] == [f'finished_{config.replace("/", "_")}']
    omp, mkl, *command = (folder / 'record').read_text().splitlines()
    return omp, mkl, command


@pytest.mark.parametrize(('cores', 'threads'), [(2, '1'), (5, '2'), (16, '8')])
def test_two_processes_share_the_cores_and_the_batch(tmp_path, cores, threads):
    expected = ['train', 'mmpanet', DEFAULT, '--work-dir', str(tmp_path / 'work'), *TWO_PROCESSES]
    assert make_train(tmp_path, cores) == (threads, threads, expected)


def test_threads_that_are_set_stay(tmp_path):
    assert make_train(tmp_path, 16, OMP_NUM_THREADS='3')[:2] == ('3', '3')


@pytest.mark.parametrize(('cores', 'words'), [(1, []), (0, []), (16, [f'CONFIG=configs/shapes/{OTHER}'])])
def test_one_process_on_one_core_on_a_gpu_and_for_other_configs(tmp_path, cores, words):
    config = f'configs/shapes/{OTHER}' if words else DEFAULT
    assert make_train(tmp_path, cores, *words) == (
        '',
        '',
        ['train', 'mmpanet', config, '--work-dir', str(tmp_path / 'work')],
    )


def test_half_of_the_batch_suits_the_config():
    """The two processes have the batch of the config, and no layer computes statistics over it."""
    cfg = Config.fromfile(ROOT / 'configs/shapes' / DEFAULT)
    assert cfg.train_dataloader.batch_size == 4
    assert "'BN'" not in str(cfg.model.to_dict()) and "'GN'" in str(cfg.model.to_dict())
