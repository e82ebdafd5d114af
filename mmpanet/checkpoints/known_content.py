# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Everything that a checkpoint may hold besides plain Python data, by the name that its pickle gives it.

The functions here take the place of those that a pickle names. Each checks its arguments.
"""

import pickle
from collections import Counter, OrderedDict
from typing import Any, Callable, Dict, Iterable, Union

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

from .storages import STORAGE_TYPES, MalformedError, Storage, shown

HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')
# The functions of classes that checkpoints name: those of the message hub, and of the scheduler OneCycleLR.
METHODS = {HistoryBuffer: HISTORY_STATISTICS, OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear')}
HISTORY_FIELDS = {'max_length', '_log_history', '_count_history'}
NUMPY_KINDS = 'biufcSU'  # numbers and strings; arrays of objects or records can hold pointers


class UnknownContentError(pickle.UnpicklingError):
    """The pickle holds something besides data; the message is its name, such as ``os.system``."""


def listed_methods_only(owner: Any, name: str) -> Callable:
    """What a checkpoint gets for ``builtins.getattr``.

    A ``HistoryBuffer`` pickles its statistics methods as ``getattr(HistoryBuffer, 'mean')`` and so on. The real
    ``getattr`` would open a way from any listed class to everything it refers to.
    """
    for known, names in METHODS.items():
        if owner is known and name in names:
            return getattr(known, name)
    raise UnknownContentError(f'builtins.getattr (a checkpoint may not read attribute {shown(name)} of {shown(owner)})')


def _bytes(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: bytes, as protocol 2 writes them."""
    if encoding not in ('latin1', 'latin-1'):
        raise UnknownContentError(f'_codecs.encode with {shown(encoding)}')
    return text.encode('latin1')


def _bytearray(content: Any = b'', encoding: str = 'latin1') -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _bytes(content, encoding))


def check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that hold tuples or sets: to hash or to compare a few that hold one another may take years."""
    for key in keys:
        if isinstance(key, (tuple, frozenset)) and any(isinstance(part, (tuple, frozenset)) for part in key):
            raise UnknownContentError('a key or an element of a set that holds a tuple or a set')


def _listed(items: Any) -> Union[list, tuple]:
    """Items in a list or a tuple. A tensor, which has items too, may have any number of them in a few bytes."""
    if type(items) not in (list, tuple):
        raise MalformedError(f'the items of {shown(items)}')
    return items


def _set(items: Any = ()) -> set:
    check_keys(_listed(items))
    return set(items)


def new_frozenset(items: Any = ()) -> frozenset:
    return frozenset(_set(items))


def new_ordered_dict(pairs: Any = ()) -> OrderedDict:
    """``collections.OrderedDict``: empty, or with the pairs that Python 2 gives it."""
    check_keys([_listed(pair)[0] for pair in _listed(pairs)])
    return OrderedDict(pairs)


def _dict(items: Any) -> dict:
    if type(items) is not dict:
        raise MalformedError(f'a dict of {shown(items)}')
    return items


def _counter(items: Any = None) -> Counter:
    return Counter(_dict({} if items is None else items))


def _size(sizes: Any) -> torch.Size:
    return torch.Size(_listed(sizes))


def _tensor(
    storage: Storage, offset: int, size: Any, stride: Any, requires_grad: bool = False, _: Any = None, flags: Any = None
) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``, and ``_rebuild_tensor`` before it.

    The flags ``conj`` and ``neg`` are those of a tensor whose bytes are to be conjugated or negated. It is a view of
    them, since in the older format the bytes come later.
    """
    if not isinstance(storage, Storage):
        raise MalformedError('a tensor without a storage')
    tensor = storage.view(offset, size, stride)
    for name, value in _dict({} if flags is None else flags).items():
        if name not in ('conj', 'neg'):
            raise UnknownContentError(f'a tensor with {shown(name)}')
        if value:
            tensor = tensor.conj() if name == 'conj' else torch._neg_view(tensor)
    return tensor.requires_grad_(bool(requires_grad))


def _tensor_of_type(
    storage: Storage,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: bool,
    _: Any,
    dtype: torch.dtype,
    flags: Any = None,
) -> Tensor:
    """``torch._utils._rebuild_tensor_v3``, for dtypes without a type of storage."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise MalformedError('a tensor without a storage or without a dtype')
    return _tensor(storage._replace(dtype=dtype), offset, size, stride, requires_grad, None, flags)


def _parameter(data: Tensor, requires_grad: bool = True, *_: Any) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise MalformedError('a parameter without a tensor')
    return nn.Parameter(data.detach(), bool(requires_grad))


def _numpy_dtype(code: str, align: bool = False, copy: bool = True) -> np.dtype:
    if not isinstance(code, str):
        raise UnknownContentError('a numpy.dtype with fields')
    try:
        dtype = np.dtype(code, False, True)  # type: ignore[call-overload]  # a copy, that BUILD may change
    except (TypeError, ValueError, SyntaxError) as error:
        raise MalformedError(f'a numpy.dtype {shown(code)}') from error
    if dtype.kind not in NUMPY_KINDS or dtype.names is not None or dtype.subdtype is not None:
        raise UnknownContentError(f'numpy.dtype({shown(code)})')
    return dtype


def _numpy_scalar(dtype: np.dtype, content: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise MalformedError('a number of numpy that does not fit its dtype')
    return np.frombuffer(content, dtype)[0] if content else dtype.type()


def _numpy_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """``numpy.core.multiarray._reconstruct``: an empty array, which BUILD fills."""
    if kind is not np.ndarray or shape != (0,):
        raise UnknownContentError(f'an array of class {shown(kind)}')
    return np.empty(0, np.uint8)


def _numpy_array_of(content: Any, dtype: np.dtype, shape: Any, order: str) -> np.ndarray:
    """``numpy.core.numeric._frombuffer``, of protocol 5."""
    if not isinstance(content, (bytes, bytearray)) or not isinstance(dtype, np.dtype) or dtype.kind not in NUMPY_KINDS:
        raise UnknownContentError(f'a numpy array of {shown(dtype)}')
    return np.frombuffer(content, dtype).reshape(shape, order=order).copy()  # type: ignore[call-overload]


# What may be called, by the name in the file.
FUNCTIONS: Dict[str, Callable] = {
    '_codecs.encode': _bytes,
    'builtins.bytearray': _bytearray,
    'builtins.complex': complex,
    'builtins.frozenset': new_frozenset,
    'builtins.getattr': listed_methods_only,
    'builtins.set': _set,
    'collections.Counter': _counter,
    'collections.OrderedDict': new_ordered_dict,
    'mmengine.config.config.ConfigDict': _dict,
    'numpy.dtype': _numpy_dtype,
    'torch.Size': _size,
    'torch.device': torch.device,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_of_type,
    # Checkpoints written under numpy 1 say numpy.core, under numpy 2 numpy._core.
    'numpy.core.multiarray._reconstruct': _numpy_array,
    'numpy._core.multiarray._reconstruct': _numpy_array,
    'numpy.core.numeric._frombuffer': _numpy_array_of,
    'numpy._core.numeric._frombuffer': _numpy_array_of,
    'numpy.core.multiarray.scalar': _numpy_scalar,
    'numpy._core.multiarray.scalar': _numpy_scalar,
}
# What may be named and is not called.
VALUES: Dict[str, Any] = {
    **{f'{known.__module__}.{known.__name__}': known for known in METHODS},
    **{
        f'{known.__module__}.{known.__name__}.{name}': getattr(known, name)
        for known, names in METHODS.items()
        for name in names
    },
    'numpy.ndarray': np.ndarray,
    'torch.storage.UntypedStorage': torch.uint8,
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{f'torch.{name}Storage': dtype for name, dtype in STORAGE_TYPES.items()},
    **{f'torch.cuda.{name}Storage': dtype for name, dtype in STORAGE_TYPES.items()},
}


def fill_history(history: HistoryBuffer, state: Any) -> None:
    """Its own ``__setstate__`` would change the statistics of the class."""
    # mmengine before 0.7.3 did not save the statistics.
    if not isinstance(state, dict) or set(state) - {'statistics_methods'} != HISTORY_FIELDS:
        raise UnknownContentError('a HistoryBuffer with other fields')
    values, counts, max_length = state['_log_history'], state['_count_history'], state['max_length']
    if not isinstance(values, np.ndarray) or not isinstance(counts, np.ndarray) or type(max_length) is not int:
        raise MalformedError('a HistoryBuffer without its arrays')
    history.__init__((), (), max_length)  # type: ignore[misc]
    history._log_history, history._count_history = values, counts


def fill_array(array: np.ndarray, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5 or array.size:
        raise MalformedError('an array without shape, dtype and content')
    _, shape, dtype, _, content = state
    if not isinstance(dtype, np.dtype) or dtype.kind not in NUMPY_KINDS or not isinstance(content, bytes):
        raise UnknownContentError(f'a numpy array of {shown(dtype)}')
    array.__setstate__(state)


def set_byte_order(dtype: np.dtype, state: Any) -> None:
    """The rest of the state must be that of the dtype: it could make numpy take numbers for pointers."""
    own = dtype.__reduce__()[2]  # version, byte order, ...
    if not isinstance(state, tuple) or len(state) != len(own) or (state[0], *state[2:]) != (own[0], *own[2:]):
        raise UnknownContentError(f'another layout of {shown(dtype)}')
    if state[1] not in ('<', '>', '|', '='):
        raise MalformedError(f'a byte order {shown(state[1])}')
    dtype.__setstate__(state)  # type: ignore[attr-defined]
