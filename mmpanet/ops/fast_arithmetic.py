# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""When faster arithmetic than torch's takes its place: for which tensors, and on which processors."""

import os
from typing import Optional, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from mmpanet.utils.environment import cpu_fields
from mmpanet.utils.errors import ConfigError

# What processors of AMD multiply vectors with. Zen 4 has the instructions of AVX512, but units of half that width.
AVX2 = 'AVX2'
HALVED_AVX512 = 'AVX512 in halves'
AVX512 = 'AVX512'
FAMILY_OF_ZEN_4 = '25'  # and of Zen 3, which has AVX2 alone

# torch before 2.3 has the function only here.
_is_compiling = getattr(getattr(torch, 'compiler', None), 'is_compiling', None) or torch._utils.is_compiling


# torch before 2.1 does not have it.
_is_transformed = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)


def are_plain(*tensors: Tensor) -> bool:
    """Whether other code than torch's may compute with these tensors: dense, float32 and on a CPU, without autocast.

    While torch records a graph or transforms a function (``torch.func``), the answer is no: these need torch's own
    operators. A subclass of ``Tensor``, such as a fake tensor without data, has its own operators too.
    """
    if torch.jit.is_tracing() or _is_compiling() or _is_transformed() or _autocasts():
        return False
    return all(
        type(x) in (Tensor, Parameter)
        and x.device.type == 'cpu'
        and x.dtype == torch.float32
        and x.layout == torch.strided
        for x in tensors
    )


def is_wanted(switch: str, amd_vectors: Sequence[str]) -> bool:
    """Whether the user wants an operation of ours, or else whether it is faster than torch's on this processor.

    Args:
        switch (str): Name of the environment variable that turns the operation on (1) or off (0) on any processor.
        amd_vectors (Sequence[str]): Those of :data:`AVX2`, :data:`HALVED_AVX512` and :data:`AVX512` with which it was
            measured to be faster on processors of AMD. On processors of others nothing was measured.

    Raises:
        ConfigError: If the environment variable is neither 0 nor 1.
    """
    wanted = os.environ.get(switch, '')
    if wanted not in ('', '0', '1'):
        raise ConfigError(f'the environment variable {switch}={wanted!r} must be 0 or 1')
    if wanted:
        return wanted == '1'
    return vectors_of_amd() in amd_vectors


def vectors_of_amd() -> Optional[str]:
    """What a processor of AMD multiplies with; None for all others, and with torch before 2.1, which does not tell."""
    capability = getattr(getattr(torch.backends, 'cpu', None), 'get_cpu_capability', str)()
    fields = cpu_fields()
    if fields.get('vendor_id') != 'AuthenticAMD' or capability not in (AVX2, AVX512):
        return None
    family = fields.get('cpu family', '')
    return HALVED_AVX512 if capability == AVX512 and family == FAMILY_OF_ZEN_4 else capability


def _autocasts() -> bool:
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()
