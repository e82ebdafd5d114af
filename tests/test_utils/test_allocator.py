# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mmpanet.utils import allocator

MEBIBYTES = 64
# Prints what keep_freed_memory() returned, and how many MiB the system had to provide for ten large tensors in turn.
# Without huge pages, because a kernel that gives them for each allocation has little to provide.
PROGRAM = f"""
import ctypes, resource, runpy, sys
import torch
PR_SET_THP_DISABLE = 41
assert ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
keep_freed_memory = runpy.run_path({allocator.__file__!r})['keep_freed_memory']
kept = keep_freed_memory() if sys.argv[1] == 'keep' else False
allocate = lambda: torch.zeros({MEBIBYTES} * 2**18)
for _ in range(30):  # the first ones leave small free blocks between them
    allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    allocate()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, faults * resource.getpagesize() / 2**20)
"""
glibc_only = pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')


def environment(**changes):
    mine = {name: value for name, value in os.environ.items() if name not in (*allocator.VARIABLES, 'GLIBC_TUNABLES')}
    return {**mine, **changes}


def run(word, **changes):
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM, word], env=environment(**changes), capture_output=True, text=True, check=True
    )
    answer, provided = result.stdout.split()
    return answer == 'True', float(provided)


@glibc_only
def test_freed_memory_is_used_again():
    assert run('leave') == (False, pytest.approx(10 * MEBIBYTES, rel=0.1))
    kept, provided = run('keep')
    assert kept and provided < 1


@glibc_only
def test_settings_of_the_user_stay():
    kept, provided = run('keep', MALLOC_TOP_PAD_='131072')
    assert not kept and provided == pytest.approx(10 * MEBIBYTES, rel=0.1)


@pytest.mark.parametrize(
    'library, changes, is_asked',
    [
        ('glibc', {}, True),
        ('glibc', dict(GLIBC_TUNABLES='glibc.rtld.optional_static_tls=2048'), True),
        ('glibc', dict(GLIBC_TUNABLES='glibc.malloc.trim_threshold=131072'), False),
        ('glibc', dict(MALLOC_MMAP_THRESHOLD_='131072'), False),
        ('', {}, False),
    ],
)
def test_who_decides(monkeypatch, library, changes, is_asked):
    asked = []
    monkeypatch.setattr(os, 'environ', environment(**changes))
    monkeypatch.setattr(platform, 'libc_ver', lambda: (library, ''))
    library_of = SimpleNamespace(mallopt=lambda *args: asked.append(args) or 1)
    monkeypatch.setattr(allocator.ctypes, 'CDLL', lambda name: library_of)
    assert allocator.keep_freed_memory() == bool(asked) == is_asked
