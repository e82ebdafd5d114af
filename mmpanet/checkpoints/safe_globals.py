# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Lets torch's safe loader read the checkpoints that mmengine writes.

Since 2.6 ``torch.load`` refuses every global that is not on its list (``weights_only=True``), because a pickle may
call anything. mmengine's checkpoints hold its message hub beside the weights: ``HistoryBuffer`` objects with
numpy arrays. So ``--resume``, ``load_from``, ``tools/test.py`` and ``DetInferencer`` fail with an UnpicklingError
on checkpoints of their own making (mmengine 0.10.7). The check stays on here; exactly what such a checkpoint holds
is added to the list.
"""

import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

try:  # numpy 2
    from numpy._core import multiarray
except ImportError:  # numpy 1
    from numpy.core import multiarray  # type: ignore[no-redef]

HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')


def history_statistics_only(owner, name):
    """What ``builtins.getattr`` is while a checkpoint loads.

    A ``HistoryBuffer`` pickles its statistics methods as ``getattr(HistoryBuffer, 'mean')`` and so on. The real
    ``getattr`` on the list would open a way from any listed class to everything it refers to.
    """
    if owner is HistoryBuffer and name in HISTORY_STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'a checkpoint may not read attribute {name!r} of {owner!r}')


def mmengine_checkpoint_globals():
    """The globals that mmengine's checkpoints hold, with the names they are pickled under."""
    number_dtypes = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?'}
    # Checkpoints written under numpy 1 say numpy.core, under numpy 2 numpy._core; either is read by either.
    array_parts = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    return [
        HistoryBuffer,
        (history_statistics_only, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *sorted(number_dtypes, key=lambda dtype: dtype.__name__),
        *array_parts,
    ]


def allow_mmengine_checkpoints():
    """Add them to torch's list; a torch that does not check (before 2.6) needs nothing."""
    torch_version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if torch_version >= (2, 6):
        torch.serialization.add_safe_globals(mmengine_checkpoint_globals())
