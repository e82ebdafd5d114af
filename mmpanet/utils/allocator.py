# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""How the memory allocator of the C library treats what is freed."""

import ctypes
import os
import platform

# Parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4
NEVER = -1
# With one of these, or with GLIBC_TUNABLES for malloc, the user decides.
VARIABLES = ('MALLOC_MMAP_MAX_', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TOP_PAD_', 'MALLOC_TRIM_THRESHOLD_')


def keep_freed_memory() -> bool:
    """Keep the memory that torch frees, for its next tensors, instead of giving it back to the system.

    On a CPU torch takes the memory of each tensor from the C library. glibc gives blocks of 32 MiB and more back as
    soon as they are freed, and smaller ones from time to time. The system clears every page before it hands it out
    again. A training step allocates and frees its gradients and activations, so it waits for that in every step.

    The whole process changes. Call this in a program, not in a library.

    Returns:
        bool: Whether glibc was told to. It is not if the C library is another one, or if the user has set an
        environment variable of glibc's allocator: one of ``VARIABLES``, or ``GLIBC_TUNABLES`` for malloc.
    """
    decided = 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', '') or any(name in os.environ for name in VARIABLES)
    if decided or platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))
