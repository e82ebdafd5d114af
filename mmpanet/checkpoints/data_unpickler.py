# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Unpickling a checkpoint as data: no function runs because the file asks for it, whatever the version of torch.

A pickle is a program. Python's ``pickle``, and with it ``torch.load`` below 2.6, runs whatever that program calls.
:class:`DataUnpickler` knows a fixed list of names, most of them with a function of this module that checks its
arguments, and a fixed list of instructions. They cover what mmengine and the authors of PANet save: plain Python data,
dense tensors, numpy's numbers and arrays, and the ``HistoryBuffer`` objects of mmengine's message hub.
"""

import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from typing import IO, Any, Callable, Dict, NoReturn

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

from .storages import STORAGE_TYPES, MalformedError, Storage

HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')
HISTORY_FIELDS = {'max_length', '_log_history', '_count_history', 'statistics_methods'}
NUMPY_KINDS = 'biufcSU'  # numbers and strings; arrays of objects or records can hold pointers


class UnknownContentError(pickle.UnpicklingError):
    """The pickle holds something besides data; the message is its name, such as ``os.system``."""


def history_statistics_only(owner: Any, name: str) -> Callable:
    """What a checkpoint gets for ``builtins.getattr``.

    A ``HistoryBuffer`` pickles its statistics methods as ``getattr(HistoryBuffer, 'mean')`` and so on. The real
    ``getattr`` would open a way from any listed class to everything it refers to.
    """
    if owner is HistoryBuffer and name in HISTORY_STATISTICS:
        return getattr(HistoryBuffer, name)
    raise UnknownContentError(f'builtins.getattr (a checkpoint may not read attribute {name!r} of {owner!r})')


def _bytes(text: str, encoding: str) -> bytes:
    """``_codecs.encode``: bytes, as protocol 2 writes them."""
    if encoding not in ('latin1', 'latin-1'):
        raise UnknownContentError(f'_codecs.encode with {encoding!r}')
    return text.encode('latin1')


def _bytearray(content: Any = b'', encoding: str = 'latin1') -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _bytes(content, encoding))


def _tensor(storage: Storage, offset: int, size: Any, stride: Any, requires_grad: bool = False, *_: Any) -> Tensor:
    """``torch._utils._rebuild_tensor_v2``, and ``_rebuild_tensor`` before it."""
    if not isinstance(storage, Storage):
        raise MalformedError('a tensor without a storage')
    return storage.view(offset, size, stride).requires_grad_(bool(requires_grad))


def _tensor_of_type(
    storage: Storage, offset: int, size: Any, stride: Any, requires_grad: bool, _: Any, dtype: torch.dtype, *__: Any
) -> Tensor:
    """``torch._utils._rebuild_tensor_v3``, for dtypes without a type of storage."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        raise MalformedError('a tensor without a storage or without a dtype')
    return _tensor(storage._replace(dtype=dtype), offset, size, stride, requires_grad)


def _parameter(data: Tensor, requires_grad: bool = True, *_: Any) -> nn.Parameter:
    if not isinstance(data, Tensor):
        raise MalformedError('a parameter without a tensor')
    return nn.Parameter(data.detach(), bool(requires_grad))


def _numpy_dtype(code: str, align: bool = False, copy: bool = True) -> np.dtype:
    if not isinstance(code, str):
        raise UnknownContentError('a numpy.dtype with fields')
    dtype = np.dtype(code, False, True)  # type: ignore[call-overload]  # a copy, that BUILD may change
    if dtype.kind not in NUMPY_KINDS or dtype.names is not None or dtype.subdtype is not None:
        raise UnknownContentError(f'numpy.dtype({code!r})')
    return dtype


def _numpy_scalar(dtype: np.dtype, content: bytes) -> Any:
    if not isinstance(dtype, np.dtype) or not isinstance(content, bytes) or len(content) != dtype.itemsize:
        raise MalformedError('a number of numpy that does not fit its dtype')
    return np.frombuffer(content, dtype)[0] if content else dtype.type()


def _numpy_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """``numpy.core.multiarray._reconstruct``: an empty array, which BUILD fills."""
    if kind is not np.ndarray or shape != (0,):
        raise UnknownContentError(f'an array of class {kind!r}')
    return np.empty(0, np.uint8)


# What may be called, by the name in the file.
FUNCTIONS: Dict[str, Callable] = {
    '_codecs.encode': _bytes,
    'builtins.bytearray': _bytearray,
    'builtins.complex': complex,
    'builtins.frozenset': frozenset,
    'builtins.getattr': history_statistics_only,
    'builtins.set': set,
    'collections.Counter': Counter,
    'collections.OrderedDict': OrderedDict,
    'mmengine.config.config.ConfigDict': dict,
    'numpy.dtype': _numpy_dtype,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_of_type,
    # Checkpoints written under numpy 1 say numpy.core, under numpy 2 numpy._core.
    'numpy.core.multiarray._reconstruct': _numpy_array,
    'numpy._core.multiarray._reconstruct': _numpy_array,
    'numpy.core.multiarray.scalar': _numpy_scalar,
    'numpy._core.multiarray.scalar': _numpy_scalar,
}
# What may be named and is not called.
VALUES: Dict[str, Any] = {
    'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
    **{
        f'mmengine.logging.history_buffer.HistoryBuffer.{name}': getattr(HistoryBuffer, name)
        for name in HISTORY_STATISTICS
    },
    'numpy.ndarray': np.ndarray,
    'torch.storage.UntypedStorage': torch.uint8,
    **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
    **{f'torch.{name}Storage': dtype for name, dtype in STORAGE_TYPES.items()},
    **{f'torch.cuda.{name}Storage': dtype for name, dtype in STORAGE_TYPES.items()},
}
# fmt: off
PLAIN_INSTRUCTIONS = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2,
    pickle.LONG1, pickle.LONG4, pickle.BINFLOAT, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES,
    pickle.SHORT_BINBYTES, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.FROZENSET,
    pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL,
    pickle.STACK_GLOBAL, pickle.BINPERSID, pickle.BYTEARRAY8,
)
# fmt: on


class DataUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """An unpickler for plain data, tensors, numpy's numbers and arrays, and mmengine's history.

    It derives from Python's own unpickler in Python, since that in C lets a pickle call every object it holds, and
    set the attributes of every object, whatever ``find_class`` allows.

    Args:
        stream: Where the pickle starts.
        load_storage: Gives the :class:`Storage` of a persistent id, see :func:`.storages.parse_storage_name`.

    Raises:
        UnknownContentError: On loading, if the pickle holds something else.
        MalformedError: On loading, if arguments do not fit.
    """

    dispatch: Dict[int, Callable] = {
        code[0]: pickle._Unpickler.dispatch[code[0]]  # type: ignore[attr-defined]
        for code in PLAIN_INSTRUCTIONS
    }

    def __init__(self, stream: IO[bytes], load_storage: Callable[[Any], Storage]) -> None:
        super().__init__(stream, encoding='utf-8')
        self.persistent_load = load_storage

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # an instruction, or an entry of the memo, that is not there
            raise UnknownContentError(f'the pickle instruction {error.args[0]!r}') from error

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # the names of Python 2
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[(module, name)]
            else:
                module = IMPORT_MAPPING.get(module, module)
        path = f'{module}.{name}'
        if path in FUNCTIONS:
            return FUNCTIONS[path]
        if path in VALUES:
            return VALUES[path]
        raise UnknownContentError(path)

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not any(function is allowed for allowed in FUNCTIONS.values()) or type(arguments) is not tuple:
            raise UnknownContentError(f'a call of {function!r}')
        self.stack[-1] = function(*arguments)

    def _load_newobj(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack[-1]
        if kind is not HistoryBuffer and kind is not OrderedDict or arguments != ():
            raise UnknownContentError(f'a new object of {kind!r}')
        self.stack[-1] = kind.__new__(kind)

    def _load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is np.ndarray:
            _fill_array(target, state)
        elif isinstance(target, np.dtype):
            _set_byte_order(target, state)
        elif type(target) is HistoryBuffer:
            _fill_history(target, state)
        elif type(target) is OrderedDict and isinstance(state, dict) and set(state) <= {'_metadata'}:
            target.__dict__.update(state)  # of a state dict
        else:
            raise UnknownContentError(f'a new state of {type(target).__name__} {target!r}'[:100])

    def _load_append(self) -> None:
        self._append([self.stack.pop()])

    def _load_appends(self) -> None:
        self._append(self.pop_mark())

    def _append(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise UnknownContentError(f'items for a {type(self.stack[-1]).__name__}')
        self.stack[-1].extend(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict, Counter):
            raise UnknownContentError(f'items for a {type(self.stack[-1]).__name__}')
        for key, value in zip(items[::2], items[1::2]):
            self.stack[-1][key] = value

    def _load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise UnknownContentError(f'items for a {type(self.stack[-1]).__name__}')
        self.stack[-1].update(items)

    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_newobj
    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.APPEND[0]] = _load_append
    dispatch[pickle.APPENDS[0]] = _load_appends
    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.ADDITEMS[0]] = _load_additems


def _fill_history(history: HistoryBuffer, state: Any) -> None:
    """Its own ``__setstate__`` would change the statistics of the class."""
    if not isinstance(state, dict) or set(state) != HISTORY_FIELDS:
        raise UnknownContentError('a HistoryBuffer with other fields')
    values, counts, max_length = state['_log_history'], state['_count_history'], state['max_length']
    if not isinstance(values, np.ndarray) or not isinstance(counts, np.ndarray) or type(max_length) is not int:
        raise MalformedError('a HistoryBuffer without its arrays')
    history.__init__((), (), max_length)  # type: ignore[misc]
    history._log_history, history._count_history = values, counts


def _fill_array(array: np.ndarray, state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5 or array.size:
        raise MalformedError('an array without shape, dtype and content')
    _, shape, dtype, _, content = state
    if not isinstance(dtype, np.dtype) or dtype.kind not in NUMPY_KINDS or not isinstance(content, bytes):
        raise UnknownContentError(f'a numpy array of {dtype!r}')
    array.__setstate__(state)


def _set_byte_order(dtype: np.dtype, state: Any) -> None:
    """The rest of the state must be that of the dtype: it could make numpy take numbers for pointers."""
    own = dtype.__reduce__()[2]  # version, byte order, ...
    if not isinstance(state, tuple) or len(state) != len(own) or (state[0], *state[2:]) != (own[0], *own[2:]):
        raise UnknownContentError(f'another layout of {dtype!r}')
    if state[1] not in ('<', '>', '|', '='):
        raise MalformedError(f'a byte order {state[1]!r}')
    dtype.__setstate__(state)


def refuse_storage(name: Any) -> NoReturn:
    """For pickles that hold no tensors."""
    raise MalformedError('a storage where there is none')
