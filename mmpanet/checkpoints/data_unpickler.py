# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Unpickling a checkpoint as data: no function runs because the file asks for it, whatever the version of torch.

A pickle is a program. Python's ``pickle``, and with it ``torch.load`` below 2.6, runs whatever that program calls.
:class:`DataUnpickler` knows a fixed list of names (:mod:`.known_content`) and a fixed list of instructions. They cover
what mmengine and the authors of PANet save: plain Python data, dense tensors, numpy's numbers and arrays, and the
``HistoryBuffer`` objects of mmengine's message hub.
"""

import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from typing import IO, Any, Callable, Dict, NoReturn, Sequence

import numpy as np
from mmengine.logging import HistoryBuffer

from .known_content import (
    FUNCTIONS,
    VALUES,
    UnknownContentError,
    check_keys,
    fill_array,
    fill_history,
    new_frozenset,
    new_ordered_dict,
    set_byte_order,
)
from .storages import MalformedError, Storage, shown

# fmt: off
PLAIN_INSTRUCTIONS = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2,
    pickle.LONG1, pickle.LONG4, pickle.BINFLOAT, pickle.BINSTRING, pickle.SHORT_BINSTRING, pickle.BINBYTES,
    pickle.SHORT_BINBYTES, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET,
    pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.MEMOIZE, pickle.GLOBAL,
    pickle.STACK_GLOBAL, pickle.BINPERSID,
)
# fmt: on
COPIES = 16  # how many times as large as the pickle all copies that its calls make may be
SIZED = (bytes, bytearray, str, list, tuple, dict)
_PythonUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Exact:
    """A stream that gives all that it is asked for, or an EOFError."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        if len(content) < size:
            raise EOFError('it ends in the middle of its data')
        return content

    def readline(self) -> bytes:
        line = self.stream.readline()
        if not line.endswith(b'\n'):
            raise EOFError('it ends in the middle of its data')
        return line


class DataUnpickler(_PythonUnpickler):
    """An unpickler for plain data, tensors, numpy's numbers and arrays, and mmengine's history.

    It derives from Python's own unpickler in Python, since that in C lets a pickle call every object it holds, and
    set the attributes of every object, whatever ``find_class`` allows.

    Args:
        stream: Where the pickle starts.
        load_storage: Gives the :class:`Storage` of a persistent id, see :func:`.storages.parse_storage_name`.
        num_bytes: Length of the pickle, or of the file that it stands in. What calls copy may be a few times as large.

    Raises:
        UnknownContentError: On loading, if the pickle holds something else.
        MalformedError: On loading, if arguments do not fit.
    """

    dispatch: Dict[int, Callable] = {code[0]: _PythonUnpickler.dispatch[code[0]] for code in PLAIN_INSTRUCTIONS}

    def __init__(self, stream: IO[bytes], load_storage: Callable[[Any], Storage], num_bytes: int) -> None:
        super().__init__(_Exact(stream), encoding='utf-8')
        self.persistent_load = load_storage
        self.copies_left = COPIES * num_bytes

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
            raise UnknownContentError(f'a call of {shown(function)}')
        self._count_copies(arguments)
        self.stack[-1] = function(*arguments)

    def _count_copies(self, values: Sequence[Any]) -> None:
        """Refuse a pickle that lets one value be copied again and again."""
        self.copies_left -= sum(len(value) for value in values if isinstance(value, SIZED))
        if self.copies_left < 0:
            raise UnknownContentError('copies of one value that are many times as large as the file')

    def _load_newobj(self) -> None:
        arguments = self.stack.pop()
        kind = self.stack[-1]
        if kind is not HistoryBuffer and kind is not new_ordered_dict or arguments != ():
            raise UnknownContentError(f'a new object of {shown(kind)}')
        self.stack[-1] = OrderedDict() if kind is new_ordered_dict else HistoryBuffer.__new__(HistoryBuffer)

    def _load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is np.ndarray:
            self._count_copies(state if isinstance(state, tuple) else ())
            fill_array(target, state)
        elif isinstance(target, np.dtype):
            set_byte_order(target, state)
        elif type(target) is HistoryBuffer:
            fill_history(target, state)
        elif type(target) is OrderedDict and isinstance(state, dict) and set(state) <= {'_metadata'}:
            target.__dict__.update(state)  # of a state dict
        else:
            raise UnknownContentError(f'a new state of {shown(target)}')

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
        check_keys(items[::2])
        for key, value in zip(items[::2], items[1::2]):
            self.stack[-1][key] = value

    def _load_additems(self) -> None:
        items = self.pop_mark()
        if type(self.stack[-1]) is not set:
            raise UnknownContentError(f'items for a {type(self.stack[-1]).__name__}')
        check_keys(items)
        self.stack[-1].update(items)

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(new_frozenset(items))

    def _load_bytearray8(self) -> None:
        (length,) = struct.unpack('<Q', self.read(8))
        self.append(bytearray(self.read(length)))  # Python's own makes it before it looks at the file

    dispatch[pickle.REDUCE[0]] = _load_reduce
    dispatch[pickle.NEWOBJ[0]] = _load_newobj
    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.APPEND[0]] = _load_append
    dispatch[pickle.APPENDS[0]] = _load_appends
    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.ADDITEMS[0]] = _load_additems
    dispatch[pickle.FROZENSET[0]] = _load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray8


def refuse_storage(name: Any) -> NoReturn:
    """For pickles that hold no tensors."""
    raise MalformedError('a storage where there is none')
