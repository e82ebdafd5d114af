"""Install mmcv with its compiled operators into the Python that runs this file.

There is no mmcv wheel on PyPI, and OpenMMLab's own wheels end at torch 2.1, so on a newer torch everybody
compiles: 26 minutes on two cores as it comes, about 3 with this script (see ``precompiled_cxx.py``). It takes
the first of these that works here:

1. an mmcv that this Python already imports, of whatever origin: it is left alone;
2. with ``--wheels DIR``: a wheel in the subfolder of DIR for this Python, this torch and these operators;
3. a wheel that pip finds (``PIP_FIND_LINKS``, an index) or that pip built and cached earlier;
4. a compile. Its wheel goes into pip's cache, and with ``--wheels`` into that subfolder, so that it is done once.

The name of a wheel does not say which torch it was compiled for, so each torch has a subfolder of its own, such as
``cp310-torch2.1.2+cu121-cpu``. The CUDA operators are built where torch sees a GPU (or with ``--cuda``), the CPU
operators everywhere.
"""

import argparse
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

PYTHON = sys.executable
# Distributions that provide the module mmcv with its operators, and the version of each that is installed unless
# another is asked for. OpenMMLab's: the newest that mmdet 3.3 takes. VBTI's fork goes with its fork of mmdet.
VERSIONS = {'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'}
PROBE = """
import json, sys
try:
    import cv2
except ModuleNotFoundError:
    pass
except ImportError as error:
    sys.exit(f'OpenCV cannot be imported ({error})')
try:
    import mmcv, mmcv.ops
    print(json.dumps([mmcv.__version__, mmcv.ops.get_compiling_cuda_version()]))
except Exception as error:
    sys.exit(f'{type(error).__name__}: {error}')
"""


class InstallError(Exception):
    """Something the user has to mend; its text says what and how."""


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0],
        epilog='\n'.join(__doc__.split('\n')[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--distribution',
        choices=list(VERSIONS),
        help="OpenMMLab's mmcv, or the fork that goes with onedl-mmdetection (default: mmcv, or what is here)",
    )
    parser.add_argument('--version', help=f'its version (default: {VERSIONS})')
    parser.add_argument(
        '--jobs', type=int, help='compile jobs at a time (default: $MAX_JOBS, else one per core, as memory allows)'
    )
    parser.add_argument('--wheels', metavar='DIR', help='folder to keep compiled wheels in, and to take them from')
    parser.add_argument('--force', action='store_true', help='compile anew, whatever is installed or cached')
    device = parser.add_mutually_exclusive_group()
    device.add_argument('--cuda', action='store_true', help='build the CUDA operators even if no GPU is visible')
    device.add_argument('--cpu', action='store_true', help='build the CPU operators only')
    return parser.parse_args()


def run(command, **kwargs):
    return subprocess.run(command, capture_output=True, text=True, **kwargs)


def probe_mmcv():
    """((version, CUDA version or 'not available'), None), or (None, why mmcv.ops cannot be imported)."""
    import json

    result = run([PYTHON, '-W', 'ignore', '-c', PROBE], cwd=tempfile.gettempdir())
    if result.returncode == 0:
        return tuple(json.loads(result.stdout.splitlines()[-1])), None
    reason = (result.stderr.strip().splitlines() or [f'Python ended with {result.returncode}'])[-1]
    if reason.startswith('OpenCV'):  # no mmcv would work
        raise InstallError(
            f'mmcv needs OpenCV. {reason}. If a library is missing, install it, for example\n'
            '  Debian, Ubuntu:  apt-get install libgl1 libglib2.0-0\n  Fedora, RHEL:    dnf install mesa-libGL glib2\n'
            'or take the OpenCV that needs neither: python -m pip install opencv-python-headless'
        )
    return None, reason


def installed_distributions():
    """Names of the installed distributions that provide the module ``mmcv``: mmcv, mmcv-lite, onedl-mmcv, ..."""
    from importlib import metadata

    names = {(dist.metadata['Name'] or '').lower() for dist in metadata.distributions()}
    return sorted(name for name in names if re.fullmatch(r'(.+-)?mmcv(-.+)?', name))


def torch_facts():
    """torch's version, the CUDA it was built for (or None), and whether it sees a GPU."""
    result = run(
        [
            PYTHON,
            '-W',
            'ignore',
            '-c',
            'import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())',
        ]
    )
    if result.returncode != 0:
        error = (result.stderr.strip().splitlines() or ['no message'])[-1]
        raise InstallError(
            f'mmcv is compiled against torch, and {PYTHON} cannot import torch ({error}).\n'
            'Install torch first, for example: python -m pip install torch==2.13.0'
        )
    version, cuda, visible = result.stdout.split()
    return version, None if cuda == 'None' else cuda, visible == 'True'


def default_jobs():
    """As many as $MAX_JOBS says; else one job per core, but no more than memory holds: a file takes up to 1.5 GB."""
    if os.environ.get('MAX_JOBS', '').isdigit():
        return max(1, int(os.environ['MAX_JOBS']))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    memory = available_memory()
    return cores if memory is None else max(1, min(cores, int(memory // 1.5e9)))


def available_memory():
    """Bytes that new processes can take, or None if the system does not tell."""
    try:
        with open('/proc/meminfo') as f:  # free memory, and what the system can take back from its file cache
            [line] = [line for line in f if line.startswith('MemAvailable:')]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def build_environment(work_dir, jobs, cuda):
    """The environment of mmcv's build: ours, with a compiler that precompiles torch's headers."""
    env = dict(os.environ, MAX_JOBS=str(jobs), MMCV_WITH_OPS='1', FORCE_CUDA='1' if cuda else '0')
    # pip runs in another folder.
    for name in ('PIP_FIND_LINKS', 'PIP_CONSTRAINT', 'PIP_CONFIG_FILE'):
        if env.get(name):
            env[name] = ' '.join(os.path.abspath(p) if os.path.exists(p) else p for p in env[name].split(' '))
    if cuda:
        # mmcv 2.1 includes a header that later versions of torch dropped; all that was left in it is this line.
        header = os.path.join(work_dir, 'compatibility', 'THC', 'THCAtomics.cuh')
        os.makedirs(os.path.dirname(header))
        with open(header, 'w') as f:
            f.write('#include <ATen/cuda/Atomic.cuh>\n')
        folders = [env.get('CPATH'), os.path.join(work_dir, 'compatibility')]  # searched after torch's own
        env['CPATH'] = os.pathsep.join(filter(None, folders))
    else:
        env['CUDA_VISIBLE_DEVICES'] = ''
    env['PATH'] = os.pathsep.join([os.path.dirname(PYTHON), env.get('PATH', os.defpath)])  # ninja of this environment
    if os.name == 'posix' and sys.platform != 'darwin':
        standard = torch_standard()
        env['CXX'] = write_launcher(work_dir, 'c++', standard, compiler())
        if cuda and standard > 'c++17':
            env['PYTORCH_NVCC'] = write_launcher(work_dir, 'nvcc', standard, cuda_compiler(env))
    return env


def torch_standard():
    """The C++ standard that torch's headers ask for, such as ``'c++17'``; mmcv asks for C++17 whatever torch says."""
    code = 'import os, torch; print(os.path.join(os.path.dirname(torch.__file__), "include", "ATen", "ATen.h"))'
    try:
        with open(run([PYTHON, '-W', 'ignore', '-c', code]).stdout.strip(), errors='replace') as header:
            match = re.search(r'#error C\+\+(\d\d) or later', header.read())
    except OSError:
        match = None
    return f'c++{match.group(1)}' if match else 'c++17'


def write_launcher(work_dir, name, standard, command):
    """An executable that starts a compiler by way of ``precompiled_cxx.py``; its path."""
    launcher = os.path.join(work_dir, name)
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'precompiled_cxx.py')
    words = [PYTHON, '-S', '-E', script, work_dir, standard, command]
    with open(launcher, 'w') as f:
        f.write(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, words))} "$@"\n')
    os.chmod(launcher, 0o755)
    return launcher


def compiler():
    return os.environ.get('CXX') or 'c++'


def cuda_compiler(env):
    """The nvcc that torch would take: from the folder that a variable names, on the PATH, or from its usual place."""
    if env.get('PYTORCH_NVCC'):
        return env['PYTORCH_NVCC']
    home = env.get('CUDA_HOME') or env.get('CUDA_PATH')
    if not home and shutil.which('nvcc', path=env['PATH']):
        return 'nvcc'
    return os.path.join(home or '/usr/local/cuda', 'bin', 'nvcc')


class Progress:
    """Follows pip's output, shows one line for what takes long, and keeps all of it in a log."""

    def __init__(self, log_path):
        self.log_path = log_path
        self.start = time.time()
        self.building = self.compiled = False
        self.tty = sys.stdout.isatty()

    def run(self, command, env):
        with open(self.log_path, 'a') as log, subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            cwd=os.path.dirname(self.log_path),
        ) as process:
            try:
                for line in process.stdout:
                    log.write(line)
                    self.follow(line)
            except KeyboardInterrupt:
                process.terminate()
                raise
        return process.returncode

    def follow(self, line):
        match = re.match(r'\s*\[(\d+)/(\d+)\]\s', line)
        if match:
            done, total = map(int, match.groups())
            if not self.compiled:
                self.compiled = True
                for path in glob.glob(os.path.join(os.path.dirname(self.log_path), '*.failed')):
                    with open(path, errors='replace') as f:
                        self.show(f"torch's headers could not be precompiled, so this takes long: {f.read(300)}")
            if self.tty or done % 7 == 0 or done == total:
                self.show(f'compiling mmcv: {done}/{total} objects, {self.elapsed()}', end='\r' if self.tty else '\n')
                if self.tty and done == total:
                    print()
        elif re.match(r'\s*Building wheel for (onedl-)?mmcv\b', line) and not self.building:
            self.building = True
            self.show('no ready mmcv wheel for this Python and torch: compiling')

    def elapsed(self):
        minutes, seconds = divmod(int(time.time() - self.start), 60)
        return f'{minutes}:{seconds:02d}'

    @staticmethod
    def show(text, end='\n'):
        print(f'  {text}', end=end, flush=True)


def explain_failure(log_path, cuda, torch_cuda):
    """What to tell the user about a build that failed, from what is missing here and what the log says."""
    with open(log_path) as f:
        log = f.read()
    command = shlex.split(compiler())[0]
    if 'No matching distribution found' in log:
        return 'pip found no such mmcv. Is the index reachable, and does the version exist?'
    if shutil.which(command) is None:
        return (
            f'there is no C++ compiler here ({command!r} is not on the PATH). Install one, for example\n'
            '  Debian, Ubuntu:  apt-get install g++\n  Fedora, RHEL:    dnf install gcc-c++'
        )
    if not os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h')):
        return (
            "Python's headers are not here (Python.h). Install them, for example\n"
            '  Debian, Ubuntu:  apt-get install python3-dev\n  Fedora, RHEL:    dnf install python3-devel'
        )
    if "No module named 'pkg_resources'" in log:
        return (
            "mmcv's setup.py needs pkg_resources, which setuptools 82 removed:\n"
            '  python -m pip install "setuptools>=67,<81"'
        )
    if cuda and re.search(r'CUDA_HOME environment variable is not set|nvcc: not found|FileNotFoundError: .*nvcc', log):
        return (
            f'torch was built for CUDA {torch_cuda}, but its compiler nvcc is not here. Install the CUDA toolkit '
            'of that version\nand set CUDA_HOME, or build the CPU operators only: install_mmcv.py --cpu'
        )
    if cuda and 'The detected CUDA version' in log:
        return (
            f'nvcc and torch are of different CUDA versions (torch: {torch_cuda}). Point CUDA_HOME to the toolkit '
            'of that version,\nor build the CPU operators only: install_mmcv.py --cpu'
        )
    if re.search(r'error: Killed|cannot allocate memory|virtual memory exhausted', log, re.I):
        return 'the compiler ran out of memory. Try fewer jobs: install_mmcv.py --jobs 1'
    lines = [line.strip() for line in log.splitlines() if len(line) < 400]
    of_the_compiler = [line for line in lines if re.search(r'^\S+:(\d+:\d+:)? (fatal )?error: ', line)]
    of_anything = [line for line in lines if re.search(r'\berror\b', line, re.I)]
    shown = of_the_compiler[:5] or of_anything[-8:] or lines[-8:]
    return 'the build failed:\n' + '\n'.join(f'  {line}' for line in shown)


def check_existing(distribution, force, version=None, cuda=False):
    """The importable mmcv to leave alone, or None where one is to be installed.

    ``version`` and ``cuda`` are what the user has asked for, which an mmcv that is there may lack.
    """
    found, reason = probe_mmcv()
    distributions = installed_distributions()
    is_meant = distribution in (None, *distributions) or not distributions
    if found and not force and is_meant:
        name = ' / '.join(distributions) or 'mmcv'
        if version and found[0] != version:
            raise InstallError(f'{name} {found[0]} is here, and --version asks for {version}: --force replaces it')
        if cuda and found[1] == 'not available':
            raise InstallError(f'{name} {found[0]} is here without the CUDA operators: --cuda --force replaces it')
        return found, name
    distribution = distribution or 'mmcv'
    foreign = [name for name in distributions if name != distribution]
    if foreign:
        state = 'provides' if found else f'is installed but its operators cannot be imported ({reason}); it provides'
        raise InstallError(
            f'{", ".join(foreign)} {state} the module mmcv here, and two of them in one environment '
            f'break each other.\nRemove it first: python -m pip uninstall {" ".join(foreign)}'
        )
    if distributions and not force:
        print(f'the mmcv that is installed does not work here ({reason}): it is replaced')
    return None, None


def wheel_folder(wheels, torch_version, cuda):
    """Where wheels for this Python, this torch and these operators are kept: their names say none of the last two."""
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    return os.path.join(os.path.abspath(wheels), f'{python}-torch{torch_version}-{"cuda" if cuda else "cpu"}')


def make_wheel_folder(folder):
    """Make the folder before an hour of compiling, not after it."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InstallError(f'--wheels: {folder} cannot be made: {error.strerror}') from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InstallError(f'--wheels: no permission to write into {folder}')


def pip_command(*words):
    quiet = ['--no-color', '--disable-pip-version-check', '--progress-bar', 'off']
    return [PYTHON, '-m', 'pip', words[0], '-v', *quiet, *words[1:]]


def install_wheel(progress, folder, env, cuda):
    """Install the one wheel of ``folder``: pip's exit status, and why it does not work here, None if it works."""
    [wheel] = glob.glob(os.path.join(folder, '*.whl'))
    code = progress.run(pip_command('install', '--force-reinstall', '--no-deps', wheel), env)
    if code:
        return code, 'pip could not install it'
    if progress.run(pip_command('install', wheel), env):  # adds what mmcv itself needs
        raise InstallError('mmcv is installed, but pip could not install the packages that it needs: see the output')
    found, reason = probe_mmcv()
    if found and cuda and found[1] == 'not available':
        return 0, 'it lacks the CUDA operators'
    return 0, None if found else reason


def find_or_build(progress, distribution, version, env, cuda, force, kept=None):
    """Install mmcv from a ready wheel that works here, else compile it; pip's exit status.

    ``kept`` is the folder of wheels for this Python and this torch. A wheel that works is copied into it.
    """
    name = f'{distribution.replace("-", "_")}-{version}'
    folder = os.path.join(os.path.dirname(progress.log_path), 'wheel')
    wheel = pip_command(
        'wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', folder, f'{distribution}=={version}'
    )
    reason = 'compile anew'
    if not force:
        ready = glob.glob(os.path.join(kept, f'{name}-*.whl')) if kept else []
        if ready:
            os.mkdir(folder)
            shutil.copy(ready[0], folder)
        else:
            code = progress.run(wheel, env)
            if code:
                return code
        code, reason = install_wheel(progress, folder, env, cuda)
        if reason and not progress.compiled:
            print(f'  the ready wheel does not fit this torch ({reason}): compiling', flush=True)
    if reason and not progress.compiled:
        # A wheel in pip's cache is known by mmcv's version alone, not by torch's: one that does not load here is
        # taken out, and its place is taken by the one that is compiled.
        shutil.rmtree(folder, ignore_errors=True)
        run([PYTHON, '-m', 'pip', 'cache', 'remove', '{}-cp{}{}-*'.format(name, *sys.version_info[:2])])
        code = progress.run([*wheel, '--no-binary', distribution], env)
        if code:
            return code
        code, reason = install_wheel(progress, folder, env, cuda)
    if kept and not reason:
        for path in glob.glob(os.path.join(folder, '*.whl')):
            handle, part = tempfile.mkstemp(suffix='.part', dir=kept)  # another install may keep the same wheel
            os.close(handle)
            shutil.copy(path, part)
            os.replace(part, os.path.join(kept, os.path.basename(path)))  # whole or not at all
    return code


def install(args):
    torch_version, torch_cuda, gpu = torch_facts()
    cuda = args.cuda or not args.cpu and (gpu or os.environ.get('FORCE_CUDA') == '1')
    found, name = check_existing(args.distribution, args.force, args.version, args.cuda)
    if found:
        operators = 'CPU operators only' if found[1] == 'not available' else f'CUDA {found[1]} operators'
        print(f'{name} {found[0]} ({operators}) is already here: left alone')
        if cuda and found[1] == 'not available':
            print('  torch sees a GPU, though: `install_mmcv.py --force` replaces it with one that uses it')
        return
    distribution = args.distribution or 'mmcv'
    version = args.version or VERSIONS[distribution]
    if run([PYTHON, '-m', 'pip', '--version']).returncode != 0:
        raise InstallError(
            f'{PYTHON} has no pip. Add it: python -m ensurepip (Debian, Ubuntu: apt-get install '
            'python3-pip python3-venv)'
        )
    if cuda and torch_cuda is None:
        raise InstallError(f'the CUDA operators need a torch built for CUDA, and torch {torch_version} is not')

    jobs = args.jobs or default_jobs()
    print(
        f'installing {distribution} {version} for torch {torch_version}, '
        f'{"CPU and CUDA" if cuda else "CPU"} operators, {jobs} jobs',
        flush=True,
    )
    work_dir = tempfile.mkdtemp(prefix='mmcv-')
    progress = Progress(os.path.join(work_dir, 'build.log'))
    try:
        env = build_environment(work_dir, jobs, cuda)
        kept = wheel_folder(args.wheels, torch_version, cuda) if args.wheels else None
        if kept:
            make_wheel_folder(kept)
        code = find_or_build(progress, distribution, version, env, cuda, args.force, kept)
        if code != 0:
            raise InstallError(explain_failure(progress.log_path, cuda, torch_cuda))
        found, reason = probe_mmcv()
        if not found:
            raise InstallError(f'mmcv was installed but cannot be imported: {reason}')
    except InstallError as error:
        log_path = f'{work_dir}.log'
        if not os.path.exists(progress.log_path):  # nothing has run
            raise
        shutil.move(progress.log_path, log_path)
        raise InstallError(f'{error}\nThe whole output is in {log_path}') from None
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)
    print(
        f'mmcv {found[0]} {"compiled and installed" if progress.compiled else "installed from a ready wheel"} '
        f'in {progress.elapsed()}'
    )


def main():
    try:
        install(parse_args())
    except InstallError as error:
        sys.exit(f'install_mmcv.py: {error}')
    except KeyboardInterrupt:
        sys.exit('install_mmcv.py: interrupted; a compile starts over, for pip caches finished wheels only')


if __name__ == '__main__':
    main()
