# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The stacks that mmpanet is run on: what their files pin is what mmpanet accepts, from the oldest to the newest."""

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from repository import ROOT

from mmpanet.utils.requirements import REQUIREMENTS

if not (ROOT / '.dev_scripts').is_dir():
    pytest.skip('only a checkout has the runner of the stacks', allow_module_level=True)
sys.path.insert(0, str(ROOT / '.dev_scripts' / 'stacks'))
import environment  # noqa: E402
import run as stacks_run  # noqa: E402
import tables  # noqa: E402

sys.path.remove(str(ROOT / '.dev_scripts' / 'stacks'))

STACKS = sorted(path.stem for path in (ROOT / 'requirements' / 'stacks').glob('*.txt'))
MODULES = {'onedl-mmcv': 'mmcv', 'onedl-mmengine': 'mmengine', 'onedl-mmdetection': 'mmdet'}


def lines(name):
    """The requirements of a file under ``requirements``."""
    text = (ROOT / 'requirements' / name).read_text()
    words = [line.split('#')[0].strip() for line in text.splitlines()]
    return [Requirement(line) for line in words if line and not line.startswith('-')]


def pinned(stack):
    """Distribution: version, of a stack's file."""
    return {
        requirement.name: next(iter(requirement.specifier)).version
        for requirement in lines(f'stacks/{stack}.txt')
        if str(requirement.specifier).startswith('==')
    }


@pytest.mark.parametrize('name', STACKS)
def test_a_stack_is_accepted(name):
    versions = pinned(name)
    family = 'onedl.txt' if 'onedl-mmcv' in versions else 'openmmlab.txt'
    for requirement in [*lines('runtime.txt'), *lines(family)]:
        if requirement.name in versions:
            assert requirement.specifier.contains(versions[requirement.name]), requirement
    for distribution, version in versions.items():
        module = MODULES.get(distribution, distribution)
        if module in REQUIREMENTS:
            minimum, beyond, _ = REQUIREMENTS[module]
            assert Version(minimum) <= Version(version) < Version(beyond), distribution


@pytest.mark.parametrize('name', STACKS)
def test_a_stack_is_read(tmp_path, name):
    stack = environment.Stack(name, tmp_path)
    assert pinned(name)[stack.mmcv] == stack.mmcv_version
    assert stack.description and stack.python_version.startswith('3.')


def test_the_oldest_stack_has_the_oldest_versions_accepted():
    versions = pinned('oldest')
    assert {module: Version(minimum) for module, (minimum, _, _) in REQUIREMENTS.items()} == {
        module: Version(versions[module]) for module in REQUIREMENTS
    }
    for requirement in [*lines('runtime.txt'), *lines('openmmlab.txt')]:
        lower = [spec.version for spec in requirement.specifier if spec.operator == '>=']
        if lower:
            assert Version(versions[requirement.name]).release[:2] == Version(lower[0]).release[:2], requirement


def test_nothing_newer_than_the_newest_stacks_is_accepted():
    """Up to the next minor version; torch and mmcv, which no file of ours limits, give a warning."""
    newest = {module: Version('0') for module in REQUIREMENTS}
    for stack in STACKS:
        for distribution, version in pinned(stack).items():
            module = MODULES.get(distribution, distribution)
            if module in newest:
                newest[module] = max(newest[module], Version(version))
    for module, (_, beyond, _) in REQUIREMENTS.items():
        major, minor = newest[module].release[:2]
        assert Version(beyond) == Version(f'{major}.{minor + 1}'), module
    settings = configparser.ConfigParser()
    settings.read(ROOT / 'setup.cfg')
    accepted = SpecifierSet(settings['options']['python_requires'])
    pythons = [environment.Stack(stack, '.').python_version for stack in STACKS]
    minors = sorted(int(version.split('.')[1]) for version in pythons)
    assert [minor for minor in range(30) if accepted.contains(f'3.{minor}')] == list(range(minors[0], minors[-1] + 1))


def test_the_pinned_stack_is_what_make_installs():
    versions = pinned('torch213')
    installed = {requirement.name: requirement.specifier for requirement in lines('environment.txt')}
    assert all(str(installed[name]) == f'=={versions[name]}' for name in ('torch', 'mmengine', 'mmdet', 'openmim'))


@pytest.mark.parametrize('stage', re.findall('^make stack .*', (ROOT / '.ci' / 'run').read_text(), re.MULTILINE))
def test_the_stages_of_ci_are_command_lines_of_the_runner(stage):
    """``make -n`` prints the command that CI would run; the runner parses it."""
    # A make that runs these tests leaves its own options and variables to this one.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(('MAKE', 'MFLAGS'))}
    words = [*shlex.split(stage), '--dry-run', '--no-print-directory']
    printed = subprocess.run(words, cwd=str(ROOT), env=variables, stdout=subprocess.PIPE, check=True).stdout.decode()
    _, script, *words = shlex.split(printed)
    assert script == '.dev_scripts/stacks/run.py'
    args = stacks_run.parse_args(words)
    assert set(args.stacks) < set(STACKS) and args.optional and not args.record


@pytest.mark.parametrize('words', [['--skip', 'journey', 'torch21'], ['torch21', '--skip', 'journey']])
def test_a_stack_may_stand_before_and_after_the_options(words):
    args = stacks_run.parse_args(words)
    assert args.stacks == ['torch21'] and args.skip == ['journey']


def test_a_python_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('PYENV_ROOT', str(tmp_path))
    with pytest.raises(environment.MissingPythonError, match=r'no Python 3\.10'):
        environment.find_python('3.10')


@pytest.mark.parametrize('name', ['tests/test_a/test_b.py::test_c[1-x.y]', 'tests/test_b.py::TestClass::test_c'])
def test_tests_are_named_as_pytest_does(name):
    file, *inner = name.split('::')
    case = dict(file=file, classname='.'.join([file[:-3].replace('/', '.'), *inner[:-1]]), name=inner[-1])
    assert stacks_run.test_name(case) == name


def test_failures_are_logged_with_their_reason(tmp_path):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\nshift\nexec {shlex.quote(sys.executable)} -m pytest "$@"\n')
    python.chmod(0o755)
    (tmp_path / 'test_a.py').write_text(
        'import pytest\n\n\n@pytest.fixture\ndef broken():\n    raise OSError("no disk")\n\n\n'
        'def test_good():\n    pass\n\n\ndef test_bad():\n    assert 2 == 3\n\n\ndef test_error(broken):\n    pass\n'
    )
    stack = SimpleNamespace(folder=tmp_path, python=python, environment_variables=lambda: dict(os.environ))
    logged = []
    arguments = f'-c {os.devnull} --rootdir {tmp_path} {tmp_path}'
    result = stacks_run.run_tests(stack, arguments, logged.append)
    assert (result['passed'], result['failed'], result['skipped']) == (1, 2, 0)
    assert result['failures'] == ['test_a.py::test_bad', 'test_a.py::test_error']
    bad, error = logged
    assert bad.startswith('failed: test_a.py::test_bad\n') and 'assert 2 == 3' in bad
    assert error.startswith('failed: test_a.py::test_error\n') and 'OSError: no disk' in error


def test_tests_that_failed_are_run_again(monkeypatch):
    def run_tests(stack, arguments, log):
        assert arguments == "'a.py::test_a[1 2]' a.py::test_b"
        return dict(passed=1, failed=1, skipped=0, failures=['a.py::test_b'], minutes=0.1)

    monkeypatch.setattr(stacks_run, 'run_tests', run_tests)
    older = dict(passed=10, failed=2, skipped=3, failures=['a.py::test_a[1 2]', 'a.py::test_b'], minutes=5)
    assert stacks_run.run_failed_again(None, older, print) == dict(
        passed=11, failed=1, skipped=3, failures=['a.py::test_b'], minutes=5, again=2
    )


def test_tables_go_between_their_marks_and_keep_what_was_not_run_again(monkeypatch, tmp_path):
    page = tmp_path / 'install.md'
    page.write_text(f'before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n')
    monkeypatch.setattr(tables, 'PAGE', page)
    monkeypatch.setattr(tables, 'RECORDS', tmp_path / 'stacks.json')
    versions = dict(python='3.10.1', torch='2.1.2+cpu', mmcv='2.1.0')
    record = dict(family='mmcv', date='2026-01-01', versions=versions)
    tables.keep('torch21', dict(record, tests=dict(passed=5, failed=1, skipped=0)))
    tables.keep('torch21', dict(record, journey={'train': 'ok', 'test.py': 'a | b'}))
    text = page.read_text()
    assert text.startswith('before\n') and text.endswith('after\n') and 'old' not in text
    assert '5 passed, 1 failed, 0 skipped' in text and '| train | ok |' in text and 'a \\| b' in text
    newer = dict(record, versions=dict(versions, torch='2.2.0'), journey={})
    tables.keep('torch21', newer)
    assert 'tests' not in json.loads((tmp_path / 'stacks.json').read_text())['torch21']
