# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a processor is said to have, by what Linux says of it."""

import re
import subprocess

import pytest

from mmpanet.utils import environment

FLAGS = {
    'old': ('flags\t\t: fpu sse2', []),
    'AVX2': ('flags\t\t: fpu avx avx2 fma', ['AVX2']),
    'AVX512': ('flags\t\t: avx2 avx512f avx512_vnni avx512_bf16', ['AVX2', 'AVX512', 'VNNI', 'BF16']),
    'ARM': ('Features\t: fp asimd sve bf16', ['BF16', 'SVE']),
    'no Linux': (None, []),
}


@pytest.mark.parametrize('name', FLAGS)
@pytest.mark.parametrize('device', ['cpu', 'cuda:0'])
def test_instruction_sets_and_the_warning_of_bfloat16(monkeypatch, tmp_path, name, device):
    line, sets = FLAGS[name]
    file = tmp_path / 'cpuinfo'
    if line is not None:
        file.write_text(f'processor\t: 0\n{line}\n')
    monkeypatch.setattr(environment, 'CPU_INFO', file)
    assert environment.instruction_sets() == sets
    expected = 'this processor (AVX2) has no instructions for bfloat16: it will be slower than float32'
    warned = environment.warning_of_bfloat16(device)
    assert warned == (expected if (name, device) == ('AVX2', 'cpu') else None)


def test_results_under_docs_are_no_changes_of_the_code(tmp_path):
    def git(*command):
        settings = ['-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'commit.gpgsign=false']
        subprocess.run(['git', '-C', str(tmp_path), *settings, *command], check=True, capture_output=True)

    assert environment.commit(tmp_path) is None
    git('init')
    for name in ('docs/results.jsonl', 'code/docs.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('a')
    git('add', '.')
    git('commit', '-m', 'a')
    (tmp_path / 'docs/results.jsonl').write_text('b')
    hash_ = environment.commit(tmp_path / 'code')
    assert re.fullmatch('[0-9a-f]{7,}', hash_)
    (tmp_path / 'code/docs.py').write_text('b')
    assert environment.commit(tmp_path / 'code') == f'{hash_}+changes'
