# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""tools/install: what it says when something is missing, and that the precompiled header is really used."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from repository import ROOT

INSTALL = ROOT / 'tools' / 'install'
sys.path.insert(0, str(INSTALL))
import install_mmcv  # noqa: E402
import precompiled_cxx  # noqa: E402

sys.path.remove(str(INSTALL))


def test_leaves_a_working_mmcv_alone(monkeypatch, capsys):
    """It asks another process for mmcv, but here not for torch, which takes as long again."""
    cuda = torch.version.cuda
    monkeypatch.setattr(install_mmcv, 'torch_facts', lambda: (torch.__version__, cuda, torch.cuda.is_available()))
    monkeypatch.setattr(sys, 'argv', ['install_mmcv.py'])
    install_mmcv.main()
    assert 'is already here: left alone' in capsys.readouterr().out


def test_refuses_to_install_beside_another_distribution(monkeypatch):
    """mmcv-lite and the VBTI fork provide the same module; two of them overwrite each other's files."""
    monkeypatch.setattr(install_mmcv, 'probe_mmcv', lambda: (None, "ModuleNotFoundError: No module named 'mmcv._ext'"))
    monkeypatch.setattr(install_mmcv, 'installed_distributions', lambda: ['mmcv-lite'])
    with pytest.raises(install_mmcv.InstallError, match='pip uninstall mmcv-lite'):
        install_mmcv.check_existing('mmcv', force=False)


@pytest.mark.parametrize(
    'wanted, message',
    [
        (dict(distribution=None, version='2.0.1'), 'mmcv 2.1.0 is here, and --version asks for 2.0.1'),
        (dict(distribution='mmcv', cuda=True), '2.1.0 is here without the CUDA operators: --cuda --force replaces it'),
        (dict(distribution='onedl-mmcv'), 'mmcv provides the module mmcv here.*pip uninstall mmcv'),
    ],
)
def test_what_the_user_asks_for_is_not_passed_over(monkeypatch, wanted, message):
    monkeypatch.setattr(install_mmcv, 'probe_mmcv', lambda: (('2.1.0', 'not available'), None))
    monkeypatch.setattr(install_mmcv, 'installed_distributions', lambda: ['mmcv'])
    with pytest.raises(install_mmcv.InstallError, match=f'(?s){message}'):
        install_mmcv.check_existing(force=False, **wanted)
    assert install_mmcv.check_existing(None, False, '2.1.0') == (('2.1.0', 'not available'), 'mmcv')


def test_a_library_that_opencv_lacks_is_no_reason_to_compile(monkeypatch, tmp_path):
    (tmp_path / 'cv2.py').write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    with pytest.raises(install_mmcv.InstallError, match='(?s)OpenCV cannot be imported .libGL.so.1.*install libgl1'):
        install_mmcv.probe_mmcv()


@pytest.mark.parametrize(
    'variables, expected',
    [
        (dict(PYTORCH_NVCC='/a/nvcc', CUDA_HOME='/b'), '/a/nvcc'),
        (dict(CUDA_HOME='/b', CUDA_PATH='/c'), '/b/bin/nvcc'),
        (dict(CUDA_PATH='/c'), '/c/bin/nvcc'),
        (dict(), '/usr/local/cuda/bin/nvcc'),
    ],
)
def test_nvcc_is_looked_for_where_torch_looks(tmp_path, variables, expected):
    assert install_mmcv.cuda_compiler(dict(variables, PATH=str(tmp_path))) == expected
    nvcc = tmp_path / 'nvcc'
    nvcc.write_text('#!/bin/sh\n')
    nvcc.chmod(0o755)
    assert install_mmcv.cuda_compiler(dict(PATH=str(tmp_path))) == 'nvcc'


@pytest.mark.parametrize(
    'names, found', [(['mmcv', 'numpy', 'onedl-mmcv', 'mmcv-lite', 'mmcvish'], ['mmcv', 'mmcv-lite', 'onedl-mmcv'])]
)
def test_knows_the_distributions_of_mmcv(monkeypatch, names, found):
    from importlib import metadata

    monkeypatch.setattr(
        metadata, 'distributions', lambda: [type('Dist', (), dict(metadata=dict(Name=name))) for name in names]
    )
    assert install_mmcv.installed_distributions() == found


def test_needs_torch(tmp_path):
    """In an environment without torch it says so, in a line, before it does anything."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'env'], check=True)
    result = subprocess.run(
        [tmp_path / 'env' / 'bin' / 'python', INSTALL / 'install_mmcv.py'], capture_output=True, text=True
    )
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert 'cannot import torch' in result.stderr and 'pip install torch' in result.stderr


def test_wheels_are_kept_apart_by_torch_and_operators(tmp_path):
    """A wheel's file name says neither."""
    choices = [('2.1.2+cu121', False), ('2.1.2+cu121', True), ('2.13.0+cpu', False)]
    folders = {install_mmcv.wheel_folder(str(tmp_path), *choice) for choice in choices}
    assert len(folders) == 3 and all(folder.startswith(str(tmp_path)) for folder in folders)


class FakePip:
    """In the place of ``Progress``: a pip whose ready wheel may not fit, and whose compiled wheel does."""

    def __init__(self, folder, ready_fits, fails=()):
        self.fails = fails  # the numbers of the calls of `pip install` that fail
        self.log_path = str(folder / 'build.log')
        self.ready_fits = ready_fits
        self.compiled = self.works = False
        self.calls = []

    def run(self, command, env):
        words = command[3:]
        self.calls.append(words[0])
        if words[0] == 'wheel':
            self.compiled = '--no-binary' in words
            folder = words[words.index('--wheel-dir') + 1]
            os.makedirs(folder)
            with open(os.path.join(folder, 'mmcv-2.1.0-cp311.whl'), 'w') as f:
                f.write('compiled' if self.compiled else 'ready')
        elif self.calls.count('install') in self.fails:
            return 1
        else:
            with open(words[-1]) as f:
                self.works = f.read() == 'compiled' or self.ready_fits
        return 0

    def probe(self):
        return (('2.1.0', 'not available'), None) if self.works else (None, 'undefined symbol')


@pytest.mark.parametrize('fits, kept_text', [(True, 'ready'), (False, 'compiled')])
def test_a_wheel_that_works_is_kept_and_taken_the_next_time(tmp_path, monkeypatch, fits, kept_text):
    kept = tmp_path / 'kept'
    install_mmcv.make_wheel_folder(str(kept))
    for time, folder in enumerate((tmp_path / 'first', tmp_path / 'second')):
        folder.mkdir()
        pip = FakePip(folder, fits)
        monkeypatch.setattr(install_mmcv, 'probe_mmcv', pip.probe)
        monkeypatch.setattr(install_mmcv, 'run', lambda command: None)
        assert install_mmcv.find_or_build(pip, 'mmcv', '2.1.0', {}, False, False, str(kept)) == 0
        assert [path.read_text() for path in kept.iterdir()] == [kept_text]
        assert pip.works and ('wheel' in pip.calls) == (time == 0)


@pytest.mark.parametrize(
    'fails, calls', [([1], 'wheel install wheel install install'), ([1, 2], 'wheel install wheel install')]
)
def test_a_wheel_that_pip_does_not_install_is_compiled(tmp_path, monkeypatch, fails, calls):
    pip = FakePip(tmp_path, True, fails)
    monkeypatch.setattr(install_mmcv, 'probe_mmcv', pip.probe)
    monkeypatch.setattr(install_mmcv, 'run', lambda command: None)
    assert install_mmcv.find_or_build(pip, 'mmcv', '2.1.0', {}, False, False) == len(fails) - 1
    assert pip.calls == calls.split() and pip.compiled


def test_a_package_that_mmcv_needs_is_no_reason_to_compile(tmp_path, monkeypatch):
    pip = FakePip(tmp_path, True, [2])
    monkeypatch.setattr(install_mmcv, 'probe_mmcv', pip.probe)
    with pytest.raises(install_mmcv.InstallError, match='mmcv is installed, but pip could not install the packages'):
        install_mmcv.find_or_build(pip, 'mmcv', '2.1.0', {}, False, False)
    assert pip.calls == ['wheel', 'install', 'install'] and not pip.compiled


def test_what_pip_is_told_by_a_relative_path_is_found_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'wheels').mkdir()
    monkeypatch.setenv('PIP_FIND_LINKS', 'wheels https://example.org/wheels')
    monkeypatch.delenv('PIP_CONSTRAINT', raising=False)
    monkeypatch.setattr(install_mmcv, 'write_launcher', lambda *words: 'launcher')
    env = install_mmcv.build_environment(str(tmp_path / 'build'), 1, False)
    assert env['PIP_FIND_LINKS'] == f'{tmp_path / "wheels"} https://example.org/wheels'
    assert 'PIP_CONSTRAINT' not in env


def test_an_error_before_pip_runs_has_no_log(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('')
    monkeypatch.setattr(install_mmcv, 'torch_facts', lambda: ('2.1.2', None, False))
    monkeypatch.setattr(install_mmcv, 'check_existing', lambda *words: (None, 'mmcv'))
    monkeypatch.setattr(install_mmcv, 'build_environment', lambda *words: {})
    monkeypatch.setattr(sys, 'argv', ['install_mmcv.py', '--wheels', str(tmp_path / 'file' / 'kept')])
    with pytest.raises(install_mmcv.InstallError, match='--wheels: .*kept.* cannot be made: Not a directory$'):
        install_mmcv.install(install_mmcv.parse_args())


def test_a_folder_for_wheels_that_cannot_be_made(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(install_mmcv.InstallError, match='--wheels: .*file/kept cannot be made: Not a directory'):
        install_mmcv.make_wheel_folder(str(tmp_path / 'file' / 'kept'))


@pytest.mark.parametrize(
    'log, cuda, environment, message',
    [
        ('', False, dict(CXX='no-such-compiler'), 'no C++ compiler here'),
        ("ModuleNotFoundError: No module named 'pkg_resources'", False, {}, 'setuptools>=67,<81'),
        ('OSError: CUDA_HOME environment variable is not set.', True, {}, 'nvcc is not here'),
        ('The detected CUDA version (11.8) mismatches', True, {}, 'different CUDA versions'),
        ('c++: fatal error: Killed signal terminated program cc1plus', False, {}, 'out of memory'),
        ('ERROR: No matching distribution found for mmcv==9.9.9', False, {}, 'no such mmcv'),
        ('a.cpp:1:1: error: expected expression', False, {}, 'error: expected expression'),
    ],
)
def test_explains_a_failure(tmp_path, monkeypatch, log, cuda, environment, message):
    (tmp_path / 'Python.h').touch()
    monkeypatch.setattr(install_mmcv.sysconfig, 'get_path', lambda name: str(tmp_path))
    monkeypatch.setenv('CXX', sys.executable)  # something that is there
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    path = tmp_path / 'build.log'
    path.write_text(log)
    assert message in install_mmcv.explain_failure(str(path), cuda, '12.8')


@pytest.mark.parametrize('memory, jobs', [(None, 8), (1e9, 1), (4e9, 2), (64e9, 8)])
def test_jobs_fit_into_cores_and_memory(monkeypatch, memory, jobs):
    monkeypatch.delenv('MAX_JOBS', raising=False)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(8), raising=False)
    monkeypatch.setattr(install_mmcv, 'available_memory', lambda: memory)
    assert install_mmcv.default_jobs() == jobs
    monkeypatch.setenv('MAX_JOBS', '3')
    assert install_mmcv.default_jobs() == 3


@pytest.mark.skipif(not os.path.exists('/proc/meminfo'), reason='no Linux')
def test_memory_of_the_file_cache_is_available():
    with open('/proc/meminfo') as file:
        kilobytes = {line.split(':')[0]: int(line.split()[1]) for line in file}
    assert install_mmcv.available_memory() / 1024 == pytest.approx(kilobytes['MemAvailable'], rel=0.2)


def test_shared_flags_leave_out_what_belongs_to_a_file():
    command = ['-MMD', '-MF', 'b/a.o.d', '-O2', '-Iinclude', '-c', 'a.cpp', '-o', 'b/a.o', '-DNAME=1', '-std=c++17']
    assert precompiled_cxx.shared_flags(command) == ['-O2', '-Iinclude', '-DNAME=1', '-std=c++17']


def test_an_older_standard_gives_way_to_the_one_that_torch_needs():
    assert precompiled_cxx.with_standard(['-O2', '-std=c++17', 'a.cpp'], 'c++20') == ['-O2', '-std=c++20', 'a.cpp']
    assert precompiled_cxx.with_standard(['-std=c++20'], 'c++17') == ['-std=c++20']


@pytest.mark.parametrize('text, standard', [('#error C++20 or later compatible', 'c++20'), ('', 'c++17')])
def test_the_standard_of_torch_stands_in_its_header(monkeypatch, tmp_path, text, standard):
    (tmp_path / 'ATen.h').write_text(text)
    output = SimpleNamespace(stdout=f'{tmp_path}/ATen.h\n')
    monkeypatch.setattr(install_mmcv, 'run', lambda command: output)
    assert install_mmcv.torch_standard() == standard


@pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++')
def test_header_is_compiled_once_and_used(tmp_path):
    include, cache = tmp_path / 'include', tmp_path / 'cache'
    (include / 'torch').mkdir(parents=True)
    cache.mkdir()
    (include / 'torch' / 'types.h').write_text('#pragma once\ninline int one() { return 1; }\n')
    made = []
    for name in ('a', 'b'):
        source = tmp_path / f'{name}.cpp'
        source.write_text(f'#include <torch/types.h>\nint {name}() {{ return one(); }}\n')
        result = subprocess.run(
            [
                sys.executable,
                INSTALL / 'precompiled_cxx.py',
                cache,
                'c++17',
                'g++',
                '-O1',
                f'-I{include}',
                '-H',
                '-MMD',
                '-MF',
                tmp_path / f'{name}.d',
                '-c',
                source,
                '-o',
                tmp_path / f'{name}.o',
            ],
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        assert (tmp_path / f'{name}.o').exists()
        # -H marks a precompiled header that was used with an exclamation mark
        assert any(line.startswith('! ') and line.endswith('.gch') for line in result.stderr.splitlines())
        made.append({path.stat().st_mtime_ns for path in cache.glob('*.gch')})
    assert len(made[0]) == 1 and made[0] == made[1]


@pytest.mark.skipif(shutil.which('g++') is None, reason='needs g++')
def test_compiles_without_where_the_header_cannot_be_precompiled(tmp_path):
    (tmp_path / 'a.cpp').write_text('int a() { return 1; }\n')  # and no torch/types.h anywhere
    result = subprocess.run(
        [
            sys.executable,
            INSTALL / 'precompiled_cxx.py',
            tmp_path,
            'c++17',
            'g++',
            '-c',
            tmp_path / 'a.cpp',
            '-o',
            tmp_path / 'a.o',
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0 and (tmp_path / 'a.o').exists()
    [reason] = tmp_path.glob('*.failed')
    assert 'torch/types.h' in reason.read_text()
