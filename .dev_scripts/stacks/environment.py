# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A stack: a Python and the versions in a constraints file, and the virtual environment that is built from them."""

import glob
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / 'requirements' / 'stacks'
# Distributions of each family: mmcv, and the extras of mmpanet that bring the rest.
FAMILIES = {'mmcv': 'openmmlab,mim', 'onedl-mmcv': 'onedl'}
VERSIONS = """
import importlib, json, platform
found = dict(python=platform.python_version())
for name in ('torch', 'mmcv', 'mmengine', 'mmdet', 'numpy', 'cv2', 'onnx'):
    try:
        found[name] = importlib.import_module(name).__version__
    except ImportError:
        pass
print(json.dumps(found))
"""


class StackError(Exception):
    """What went wrong on a stack."""


class InstallationError(StackError):
    """A package could not be downloaded, built or installed."""


class MissingPythonError(InstallationError):
    """The Python that a stack asks for is not on this machine."""


class Stack:
    """One file of ``requirements/stacks``.

    Args:
        name: The name of the file without its suffix.
        folder: Folder for the environments of all stacks and for the mmcv wheels.
    """

    def __init__(self, name, folder):
        self.name = name
        self.constraints = CONSTRAINTS / f'{name}.txt'
        text = self.constraints.read_text()
        self.description = text.splitlines()[0].lstrip('# ').rstrip('.')
        self.python_version = re.search(r'^# Python (\d+\.\d+)$', text, re.M).group(1)
        self.mmcv, self.mmcv_version = re.search(r'^((?:onedl-)?mmcv)==(\S+)$', text, re.M).groups()
        self.folder = Path(folder).resolve() / name
        self.wheels = Path(folder).resolve() / 'wheels'
        self.python = self.folder / 'env' / 'bin' / 'python'

    def build(self, log):
        """Make the environment unless it is there, and install the wheel of this checkout into it.

        Args:
            log: Called with a line for each step.
        """
        made_for, complete = self.folder / 'env' / 'constraints.txt', self.folder / 'env' / 'complete'
        if not made_for.is_file() or made_for.read_text() != self.constraints.read_text():
            log('environment')
            shutil.rmtree(self.folder / 'env', ignore_errors=True)
            self._run([find_python(self.python_version), '-m', 'venv', self.folder / 'env'])
            shutil.copy(self.constraints, made_for)
        # pip leaves alone what an interrupted run has installed
        if not complete.is_file() or complete.read_text() != _requirements():
            self._pip('install', '-r', ROOT / 'requirements' / 'build.txt')
            log('torch')
            self._pip('install', 'torch', 'numpy')
            log(f'{self.mmcv} {self.mmcv_version}')
            install = [self.python, ROOT / 'tools' / 'install' / 'install_mmcv.py', '--wheels', self.wheels]
            words = ['--distribution', self.mmcv, '--version', self.mmcv_version]
            self._run([*install, *words], show=True, error=InstallationError)
            log('mmengine, mmdet, mim, and what the tests need')
            self._pip('install', f'mmpanet[{FAMILIES[self.mmcv]}] @ {self._wheel().as_uri()}')
            self._pip('install', '-r', ROOT / 'requirements' / 'tests.txt', '-r', ROOT / 'requirements' / 'deploy.txt')
            complete.write_text(_requirements())
        log('the wheel of mmpanet')
        self._pip('install', '--force-reinstall', '--no-deps', self._wheel(), error=StackError)
        self.check()

    def check(self):
        """The installed package is the wheel, and no package of the other family came with it."""
        location = Path(self.run('-c', 'import mmpanet; print(mmpanet.__file__)').splitlines()[-1])
        if self.folder / 'env' not in location.parents:
            raise StackError(f'mmpanet was imported from {location}, which is not the installed wheel')
        names = {line.split('==')[0].lower() for line in self.run('-m', 'pip', 'freeze').splitlines()}
        others = {'mmcv', 'mmengine', 'mmdet', 'openmim'} if self.mmcv == 'onedl-mmcv' else set()
        if names & others:
            raise StackError(f'packages of the other family are installed too: {", ".join(sorted(names & others))}')

    def site_packages(self):
        return Path(self.run('-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())

    def versions(self):
        return json.loads(self.run('-W', 'ignore', '-c', VERSIONS).splitlines()[-1])

    def run(self, *words):
        """Output of this stack's Python, in the stack's own folder."""
        return self._run([self.python, *words])

    def environment_variables(self):
        """The variables of processes of this stack: its own programs first, nothing of the checkout."""
        variables = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYENV_VERSION')}
        variables['PATH'] = os.pathsep.join([str(self.python.parent), os.environ.get('PATH', os.defpath)])
        return variables

    def _wheel(self):
        folder = self.folder / 'dist'
        shutil.rmtree(folder, ignore_errors=True)
        words = ['--no-deps', '--no-build-isolation', '--wheel-dir', folder, self._source()]
        self._pip('wheel', *words, error=StackError)
        [wheel] = folder.glob('*.whl')
        return wheel

    def _source(self):
        """A copy of the checkout as git sees it: a build leaves its traces there and not here."""
        source = self.folder / 'source'
        shutil.rmtree(source, ignore_errors=True)
        listed = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        for name in filter(None, self._run(listed, cwd=ROOT).split('\0')):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        return source

    def _pip(self, command, *words, error=InstallationError):
        pip = [self.python, '-m', 'pip', command, '--disable-pip-version-check', '-c', self.constraints]
        self._run([*pip, *words], error=error)

    def _run(self, command, show=False, cwd=None, error=StackError):
        self.folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            [str(word) for word in command],
            cwd=str(cwd or self.folder),
            env=self.environment_variables(),
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            text=True,
        )
        if result.returncode != 0:
            lines = [] if show else f':\n{result.stdout}\n{result.stderr}'.splitlines()
            output = '\n'.join([line for line in lines if line and not line.startswith('WARNING')][-30:])
            raise error(f'{" ".join(map(str, command[:6]))} ... ended with {result.returncode}{output}')
        return result.stdout


def _requirements():
    """All that says what is installed besides the constraints of a stack."""
    files = sorted((ROOT / 'requirements').glob('*.txt'))
    return ''.join(f'{file.name}\n{file.read_text()}' for file in [*files, ROOT / 'setup.cfg'])


def find_python(version):
    """The path of a Python of this version (``'3.10'``): on the PATH, or one of pyenv's."""
    pyenv = os.environ.get('PYENV_ROOT', os.path.expanduser('~/.pyenv'))
    candidates = [shutil.which(f'python{version}'), *glob.glob(f'{pyenv}/versions/{version}.*/bin/python')]
    for candidate in filter(None, candidates):  # a shim of pyenv may be there without its Python
        code = 'import sys; print("%d.%d" % sys.version_info[:2])'
        result = subprocess.run([candidate, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if result.returncode == 0 and result.stdout.decode().strip() == version:
            return candidate
    raise MissingPythonError(f'there is no Python {version} here')
