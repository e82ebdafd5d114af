"""Print what a report of a bug needs: the versions of everything that counts, and what of it does not work."""

import importlib
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

MODULES = ('torch', 'torchvision', 'numpy', 'cv2', 'pycocotools', 'mmengine', 'mmcv', 'mmdet', 'mmpanet')
# The VBTI forks keep the import names; two distributions of one module overwrite each other.
DISTRIBUTIONS = (
    'mmcv',
    'mmcv-lite',
    'mmcv-full',
    'onedl-mmcv',
    'mmdet',
    'onedl-mmdetection',
    'mmengine',
    'mmengine-lite',
    'onedl-mmengine',
    'mmpanet',
    'openmim',
    'openxlab',
    'setuptools',
)


def one_line(error):
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


def attempt(function):
    """What ``function`` returns, or what it fails with: a report is needed most where something is broken."""
    try:
        return function()
    except Exception as error:
        return f'FAILS: {one_line(error)}'


def version_line(command, word):
    """The first line with ``word`` in it of what ``command --version`` says."""
    if shutil.which(command) is None:
        return 'not on the PATH'
    printed = subprocess.run([command, '--version'], capture_output=True, text=True).stdout.splitlines()
    return next((line.strip() for line in printed if word in line), 'says no version')


def module_line(name):
    module = importlib.import_module(name)
    return f'{getattr(module, "__version__", "no version")}  ({Path(module.__file__).parent})'


def operators():
    from mmcv.ops import get_compiler_version, get_compiling_cuda_version

    return f'load; compiled by {get_compiler_version()}, CUDA {get_compiling_cuda_version()}'


def cuda():
    import torch

    if not torch.cuda.is_available():
        return f'not available (torch is built for CUDA {torch.version.cuda})'
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f'{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {", ".join(names)}'


def commit():
    root = Path(__file__).resolve().parents[1]
    if not (root / '.git').exists():
        return 'not a checkout'
    describe = ['git', '-C', str(root), 'describe', '--always', '--dirty']
    return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or 'unknown'


def installed():
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ', '.join(f'{name} {version}' for name, version in found.items()) or 'none'


def report():
    """Lines of 'what: how'."""
    lines = {
        'system': platform.platform(),
        'Python': f'{platform.python_version()}  ({sys.executable})',
        'compiler': attempt(lambda: version_line('c++', '')),
        'nvcc': attempt(lambda: version_line('nvcc', 'release')),
        **{name: attempt(lambda name=name: module_line(name)) for name in MODULES},
        'mmcv.ops': attempt(operators),
        'CUDA': attempt(cuda),
        'threads': attempt(lambda: importlib.import_module('torch').get_num_threads()),
        'installed': installed(),
        'commit': attempt(commit),
    }
    return '\n'.join(f'{name:12} {value}' for name, value in lines.items())


if __name__ == '__main__':
    print(report())
