# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""``torch.load`` of a user's own script reads the checkpoints that mmengine writes.

Since 2.6 ``torch.load`` refuses every global that is not on its list (``weights_only=True``), because a pickle may
call anything. mmengine's checkpoints hold its message hub beside the weights: ``HistoryBuffer`` objects with numpy
arrays. The check stays on here. Only what such a checkpoint holds is added to the list. mmpanet itself reads
checkpoints by :func:`mmpanet.checkpoints.files.load_untrusted`, which does not use that list.
"""

from typing import Callable, List, Tuple, Union

import numpy as np
import torch

from .known_content import METHODS, listed_methods_only

try:  # numpy 2
    from numpy._core import multiarray
except ImportError:  # numpy 1
    from numpy.core import multiarray  # type: ignore[no-redef]


def mmengine_checkpoint_globals() -> List[Union[Callable, Tuple[Callable, str]]]:
    """The globals that mmengine's checkpoints hold, with the names they are pickled under."""
    number_dtypes = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?'}
    # Checkpoints written under numpy 1 say numpy.core, under numpy 2 numpy._core; either is read by either.
    array_parts = [
        (getattr(multiarray, name), f'numpy.{core}.multiarray.{name}')
        for name in ('_reconstruct', 'scalar')
        for core in ('core', '_core')
    ]
    return [
        *METHODS,
        (listed_methods_only, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *sorted(number_dtypes, key=lambda dtype: dtype.__name__),
        *array_parts,
    ]


def allow_mmengine_checkpoints() -> None:
    """Add them to torch's list. A torch that does not check (below 2.6) needs nothing."""
    torch_version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if torch_version >= (2, 6):
        torch.serialization.add_safe_globals(mmengine_checkpoint_globals())
