"""A C++ compiler that reads torch's headers once instead of once a file.

``install_mmcv.py`` hands it to mmcv's build as ``CXX``. Each of mmcv's 77 C++ files spends most of its compile
time in the same ``#include <torch/types.h>``; here that header is compiled beforehand, and debug information
(97 % of the extension's size) is left out. A compiler uses a precompiled header only if it was made with the
flags of the file at hand, so it is made on the first call, from the flags of that call, and kept by their hash.

mmcv asks for C++17. From 2.14 on, torch's headers need C++20: STANDARD, such as ``c++20``, takes the place of an older
one. (nvcc is started in the same way for its standard alone.)

Usage: python precompiled_cxx.py CACHE_DIR STANDARD COMPILER [ARGUMENT ...]
"""

import fcntl
import hashlib
import os
import re
import shlex
import subprocess
import sys

HEADER = '#include <torch/types.h>\n#include <vector>\n'
EXTRA_FLAGS = ['-g0', '-w']
CXX_SUFFIXES = ('.cpp', '.cc', '.cxx')
# What belongs to one file and not to the flags that files share, with the number of words that follow it.
PER_FILE_FLAGS = {'-c': 0, '-o': 1, '-MF': 1, '-MT': 1, '-MQ': 1, '-MD': 0, '-MMD': 0, '-MP': 0}


def shared_flags(arguments):
    """The flags of a compile command without its source, its object and its dependency file."""
    flags, words = [], iter(arguments)
    for word in words:
        if word in PER_FILE_FLAGS:
            for _ in range(PER_FILE_FLAGS[word]):
                next(words, None)
        elif not word.endswith(CXX_SUFFIXES):
            flags.append(word)
    return flags


def precompiled_header(cache_dir, compiler, flags):
    """The path to ``-include``; the first caller makes its precompiled twin while the others wait.

    Returns None where the compiler cannot make one: the files then compile without, as slow as they used to.
    """
    name = hashlib.sha256('\0'.join([*compiler, *flags]).encode()).hexdigest()[:16]
    header = os.path.join(cache_dir, f'torch_{name}.h')
    with open(f'{header}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(header):
            with open(header, 'w') as f:
                f.write(HEADER)
            attempt = subprocess.run(
                [*compiler, *flags, '-x', 'c++-header', header, '-o', f'{header}.gch'],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            if attempt.returncode != 0:
                if os.path.exists(f'{header}.gch'):
                    os.remove(f'{header}.gch')
                with open(f'{header}.failed', 'wb') as f:
                    f.write(attempt.stderr)
    return None if os.path.exists(f'{header}.failed') else header


def with_standard(arguments, standard):
    """``-std=`` of a later standard stays."""
    return [
        f'-std={standard}' if re.match(r'-std=c\+\+\d\d$', word) and word[5:] < standard else word for word in arguments
    ]


def main():
    cache_dir, standard, compiler, arguments = sys.argv[1], sys.argv[2], shlex.split(sys.argv[3]), sys.argv[4:]
    arguments = with_standard(arguments, standard)
    if '-c' in arguments and any(word.endswith(CXX_SUFFIXES) for word in arguments):
        arguments += EXTRA_FLAGS
        header = precompiled_header(cache_dir, compiler, shared_flags(arguments))
        if header:
            arguments = ['-include', header, *arguments]
    os.execvp(compiler[0], [*compiler, *arguments])


if __name__ == '__main__':
    main()
