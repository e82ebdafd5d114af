# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import os
import platform
import subprocess
import sys

import pytest

from mmpanet.utils import allocator

MEBIBYTES = 64
# Prints what keep_freed_memory() returned, and how many pages the system had to provide for ten large tensors in turn.
PROGRAM = f"""
import resource, runpy, sys
import torch
keep_freed_memory = runpy.run_path({allocator.__file__!r})['keep_freed_memory']
kept = keep_freed_memory() if sys.argv[1] == 'keep' else False
allocate = lambda: torch.zeros({MEBIBYTES} * 2**18)
for _ in range(10):  # the first ones leave small free blocks between them
    allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    allocate()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGE_FAULTS = 10 * MEBIBYTES * 2**20 // os.sysconf('SC_PAGE_SIZE')
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')


def run(word, **env):
    kept = {name: value for name, value in os.environ.items() if name not in allocator.SETTINGS_OF_USERS}
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM, word], env={**kept, **env}, capture_output=True, text=True, check=True
    )
    answer, faults = result.stdout.split()
    return answer == 'True', int(faults)


@glibc_only
def test_freed_memory_is_used_again():
    assert run('leave') == (False, pytest.approx(PAGE_FAULTS, rel=0.1))
    kept, faults = run('keep')
    assert kept and faults < PAGE_FAULTS / 100


@glibc_only
def test_settings_of_the_user_stay():
    kept, faults = run('keep', MALLOC_TOP_PAD_='131072')
    assert not kept and faults == pytest.approx(PAGE_FAULTS, rel=0.1)


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(allocator.ctypes, 'CDLL', lambda name: pytest.fail('must not be loaded'))
    assert not allocator.keep_freed_memory()
