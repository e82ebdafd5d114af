# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The hardware and the software that a result or an error depends on.

At import, this file needs only Python's own library: ``tools/misc/collect_env.py`` runs it where mmcv is broken.
"""

import importlib
import os
import platform
import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Callable, Dict, List, Optional

CPU_INFO = Path('/proc/cpuinfo')
# Instruction sets that decide how fast a CPU multiplies matrices, and the flags of Linux that stand for them.
INSTRUCTION_SETS = {
    'AVX2': ('avx2',),
    'AVX512': ('avx512f',),
    'VNNI': ('avx512_vnni', 'avx_vnni'),
    'BF16': ('avx512_bf16', 'amx_bf16', 'bf16'),
    'AMX': ('amx_tile',),
    'SVE': ('sve',),
}
# What holds torch, oneDNN and MKL to fewer of them.
LIMITS = ('ATEN_CPU_CAPABILITY', 'ONEDNN_MAX_CPU_ISA', 'MKL_ENABLE_INSTRUCTIONS')
MODULES = ('torch', 'torchvision', 'numpy', 'cv2', 'pycocotools', 'mmengine', 'mmcv', 'mmdet', 'mmpanet')
# Several distributions install the same modules. Where two of them are installed, one has overwritten the other.
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
# Of MMDetection's report: what the lines above it say already, and torch's compiler flags, which fill a page.
LEFT_OUT = (
    'sys.platform',
    'numpy_random_seed',
    'PyTorch',
    'PyTorch compiling details',
    'TorchVision',
    'OpenCV',
    'MMEngine',
    'MMDetection',
)


def environment_summary(device: Optional[str] = None) -> Dict[str, str]:
    """What a measurement depends on: ``'hardware'``, and the versions of Python and of each package.

    Args:
        device: A torch device, such as ``'cpu'`` or ``'cuda:1'``. By default all GPUs, or the CPU where there is none.
    """
    versions = {'mmpanet': importlib.import_module('mmpanet.version').__version__, 'python': platform.python_version()}
    for name in ('torch', 'mmcv', 'mmengine', 'mmdet'):
        versions[name] = importlib.import_module(name).__version__
    return {'hardware': _hardware(device), **versions}


def commit(folder: Path) -> Optional[str]:
    """The short hash of the git checkout that holds ``folder``, with ``+changes`` if the code was changed.

    The code is all tracked files outside of ``docs``, where results are written.
    """
    try:
        hash_, changes = (
            subprocess.run(
                ['git', '-C', str(folder), *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (
                ['rev-parse', '--short', 'HEAD'],
                ['status', '--porcelain', '-uno', '--', ':(top)', ':(top,exclude)docs'],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return hash_ + ('+changes' if changes else '')


def cpu_name() -> str:
    """The CPU's model and its instruction sets, such as ``'AMD EPYC (AVX2, AVX512)'``, and the limits that are set."""
    model = cpu_fields().get('model name') or platform.processor() or platform.machine()
    found = instruction_sets()
    limits = [f'{name}={os.environ[name]}' for name in LIMITS if os.environ.get(name)]
    return model + (f' ({", ".join(found)})' if found else '') + (f' with {", ".join(limits)}' if limits else '')


def instruction_sets() -> List[str]:
    """Which of ``INSTRUCTION_SETS`` the CPU has; none where the system does not tell."""
    fields = cpu_fields()
    flags = set(fields.get('flags', fields.get('Features', '')).split())  # 'Features' on ARM
    return [name for name, needed in INSTRUCTION_SETS.items() if flags.intersection(needed)]


def warning_of_bfloat16(device: str) -> Optional[str]:
    """What to say to a user of bfloat16 on a CPU that has no instructions for it; None on all other devices."""
    sets = instruction_sets()
    if not device.startswith('cpu') or not sets or 'BF16' in sets:
        return None
    return f'this processor ({", ".join(sets)}) has no instructions for bfloat16: it will be slower than float32'


def cpu_fields() -> Dict[str, str]:
    """What Linux says of the first CPU, such as ``'vendor_id'``; empty on other systems."""
    fields: Dict[str, str] = {}
    if CPU_INFO.is_file():
        for line in CPU_INFO.read_text().splitlines():
            key, _, value = line.partition(':')
            fields.setdefault(key.strip(), value.strip())
    return fields


def bug_report() -> str:
    """One line per fact. A part of the stack that does not work gets a line that begins with ``FAILS``."""
    facts: Dict[str, str] = {
        'system': platform.platform(),
        'Python': f'{platform.python_version()}  ({sys.executable})',
        'CPU': _attempt(lambda: f'{cpu_name()}, {os.cpu_count()} cores'),
        'threads': _attempt(lambda: importlib.import_module('torch').get_num_threads()),
    }
    for name in MODULES:
        facts[name] = _attempt(partial(_version_and_folder, name))
    facts['mmcv.ops'] = _attempt(_compiled_operators)
    facts['installed'] = ', '.join(_installed_distributions()) or 'none'
    root = Path(__file__).resolve().parents[2]
    facts['commit'] = str((root / '.git').exists() and commit(root) or 'not a checkout')
    for key, value in _facts_of_the_stack().items():
        if key not in LEFT_OUT:
            facts.setdefault(key, str(value))
    width = max(map(len, facts))
    return '\n'.join(f'{key:{width}}  {value}' for key, value in facts.items())


def _facts_of_the_stack() -> Dict[str, object]:
    """The report of MMDetection, or of MMEngine where MMDetection cannot be imported: compilers, CUDA, GPUs."""
    failure = ''
    for module in ('mmdet.utils', 'mmengine.utils.dl_utils'):
        try:
            return importlib.import_module(module).collect_env()
        except Exception as error:
            failure = failure or f'FAILS: {_one_line(error)}'
    return {'collect_env': failure}


def _hardware(device: Optional[str]) -> str:
    import torch

    if device is None and torch.cuda.is_available():
        return f'{torch.cuda.device_count()} x {torch.cuda.get_device_name()}'
    if device and torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f'{cpu_name()}, {os.cpu_count()} cores, {threads} thread{"s" if threads > 1 else ""}'


def _version_and_folder(name: str) -> str:
    module = importlib.import_module(name)
    return f'{getattr(module, "__version__", "no version")}  ({Path(str(module.__file__)).parent})'


def _compiled_operators() -> str:
    ops = importlib.import_module('mmcv.ops')
    return f'load; compiled by {ops.get_compiler_version()}, CUDA {ops.get_compiling_cuda_version()}'


def _installed_distributions() -> List[str]:
    found = []
    for name in DISTRIBUTIONS:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    return found


def _attempt(fact: Callable[[], object]) -> str:
    """What ``fact`` returns, or how it fails: the report is needed most where something is broken."""
    try:
        return str(fact())
    except Exception as error:
        return f'FAILS: {_one_line(error)}'


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
