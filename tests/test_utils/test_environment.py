# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a processor is said to have, by what Linux says of it."""

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
