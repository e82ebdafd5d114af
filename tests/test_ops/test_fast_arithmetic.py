# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from types import SimpleNamespace

import pytest
import torch

from mmpanet.ops import fast_arithmetic
from mmpanet.ops.fast_arithmetic import AVX2, AVX512, HALVED_AVX512, are_plain, is_wanted
from mmpanet.utils.errors import ConfigError


def set_processor(monkeypatch, capability, **fields):
    cpu = SimpleNamespace(get_cpu_capability=lambda: capability)
    monkeypatch.setattr(torch.backends, 'cpu', cpu, raising=False)
    monkeypatch.setattr(fast_arithmetic, 'cpu_fields', lambda: fields)


@pytest.mark.parametrize('switch', ['MMPANET_ONEDNN_LINEAR', 'MMPANET_WINOGRAD'])
@pytest.mark.parametrize(
    'value, capability, vendor, expected',
    [
        ('', 'AVX512', 'AuthenticAMD', True),
        ('', 'AVX2', 'AuthenticAMD', False),
        ('', 'AVX512', 'GenuineIntel', False),
        ('', 'DEFAULT', 'AuthenticAMD', False),
        ('0', 'AVX512', 'AuthenticAMD', False),
        ('1', 'AVX2', 'GenuineIntel', True),
    ],
)
def test_the_user_or_else_the_processor_decides(switch, value, capability, vendor, expected, monkeypatch):
    set_processor(monkeypatch, capability, vendor_id=vendor)
    monkeypatch.setenv(switch, value)
    assert is_wanted(switch, [AVX512]) == expected


@pytest.mark.parametrize(
    'capability, family, expected',
    [
        ('AVX2', '23', AVX2),  # Zen 2
        ('AVX2', '25', AVX2),  # Zen 3, or Zen 4 with ATEN_CPU_CAPABILITY=avx2
        ('AVX512', '25', HALVED_AVX512),  # Zen 4
        ('AVX512', '26', AVX512),  # Zen 5
    ],
)
def test_each_generation_of_amd(capability, family, expected, monkeypatch):
    set_processor(monkeypatch, capability, vendor_id='AuthenticAMD', **{'cpu family': family})
    monkeypatch.delenv('MMPANET_WINOGRAD', raising=False)
    assert [one for one in (AVX2, HALVED_AVX512, AVX512) if is_wanted('MMPANET_WINOGRAD', [one])] == [expected]


def test_a_torch_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(torch.backends, 'cpu', SimpleNamespace(), raising=False)
    monkeypatch.setattr(fast_arithmetic, 'cpu_fields', lambda: dict(vendor_id='AuthenticAMD'))
    monkeypatch.delenv('MMPANET_WINOGRAD', raising=False)
    assert not is_wanted('MMPANET_WINOGRAD', [AVX2, HALVED_AVX512, AVX512])


@pytest.mark.parametrize('switch', ['MMPANET_ONEDNN_LINEAR', 'MMPANET_WINOGRAD'])
def test_a_switch_is_0_or_1(switch, monkeypatch):
    monkeypatch.setenv(switch, 'off')
    with pytest.raises(ConfigError, match=f"{switch}='off' must be 0 or 1"):
        is_wanted(switch, [AVX2])


def test_plain_tensors():
    x = torch.zeros(2)
    assert are_plain(x, x)
    assert not are_plain(x, x.double())
    assert not are_plain(x.bfloat16())
    assert not are_plain(torch.zeros(2, device='meta'), x)
    with torch.autocast('cpu', torch.bfloat16):
        assert not are_plain(x)
    seen = []
    torch.jit.trace(lambda x: seen.append(are_plain(x)) or x + 1, x, check_trace=False)
    assert seen == [False]
