# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""tools/misc/collect_env.py and the summary of the environment."""

import os
import subprocess
import sys

import pytest
import torch
from mmengine.utils.dl_utils import collect_env
from repository import ROOT, tool_path
from tiny_training import run_tool

import mmpanet
from mmpanet.utils import environment
from mmpanet.utils.environment import commit, cpu_name, environment_summary

BROKEN = 'raise ImportError("libcudart.so.11.0:\\n cannot open")\n'


NAMES = {'system', 'Python', 'CPU', 'torch', 'mmengine', 'mmcv', 'mmcv.ops', 'mmdet', 'mmpanet'}


def read_report(text):
    return {line.partition('  ')[0]: line.partition('  ')[2].strip() for line in text.splitlines()}


def test_report(capsys):
    run_tool('collect_env')
    lines = read_report(capsys.readouterr().out)
    assert lines.keys() >= NAMES
    assert lines['mmpanet'].startswith(mmpanet.__version__) and lines['mmcv.ops'].startswith('load')
    assert lines['GCC'] == collect_env()['GCC']


@pytest.mark.parametrize('broken', [['mmcv', 'mmdet'], ['torch']], ids='-'.join)
def test_report_comes_out_whole_where_a_part_of_the_stack_is_broken(broken, tmp_path):
    for name in broken:
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(BROKEN)
    run = subprocess.run(
        [sys.executable, str(tool_path('collect_env'))],
        capture_output=True,
        text=True,
        env={'PYTHONPATH': f'{tmp_path}:{ROOT}', 'PATH': os.environ['PATH']},
    )
    assert run.returncode == 0, run.stderr
    lines = read_report(run.stdout)
    assert lines.keys() >= NAMES
    for name in broken:
        assert lines[name] == 'FAILS: ImportError: libcudart.so.11.0: cannot open'
    assert lines['mmpanet'].startswith('FAILS: ImportError')
    if 'torch' in broken:
        assert lines['collect_env'].startswith('FAILS: ImportError')
    else:
        assert lines['GCC'] == collect_env()['GCC']


def test_summary_on_the_cpu():
    summary = environment_summary('cpu')
    assert list(summary) == ['hardware', 'mmpanet', 'python', 'torch', 'mmcv', 'mmengine', 'mmdet']
    assert summary['torch'] == torch.__version__
    assert summary['hardware'].startswith(cpu_name()) and f'{torch.get_num_threads()} thread' in summary['hardware']


@pytest.mark.parametrize(
    'info, expected',
    [
        ('model name : Xeon\nflags : avx2 avx512f avx512_vnni amx_tile amx_bf16\n', '(AVX2, AVX512, VNNI, BF16, AMX)'),
        ('model name\t: Xeon\nflags\t: fpu sse\n\nmodel name\t: other\nflags\t: avx2\n', 'Xeon'),
        ('Features : fp asimd bf16 sve\n', '(BF16, SVE)'),
    ],
)
def test_instruction_sets_of_a_cpu(info, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(environment, 'CPU_INFO', tmp_path / 'cpuinfo')
    environment.CPU_INFO.write_text(info)
    for name in environment.LIMITS:
        monkeypatch.delenv(name, raising=False)
    assert cpu_name().endswith(expected)
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    assert cpu_name().endswith(f'{expected} with ONEDNN_MAX_CPU_ISA=AVX2')


def test_commit_says_that_files_were_changed(tmp_path):
    assert commit(tmp_path) is None
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b.c']
    (tmp_path / 'file').write_text('1')
    for words in (['init', '-q'], ['add', 'file'], ['commit', '-qm', 'first']):
        subprocess.run([*git, *words], check=True)
    first = commit(tmp_path)
    (tmp_path / 'file').write_text('2')
    assert len(first) >= 4 and commit(tmp_path) == f'{first}+changes'
