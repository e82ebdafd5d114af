# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Checkpoints that would run code, change the process or read foreign memory if they were unpickled as they are.

Each maker takes the folder that its code would make, and returns what ``torch.save`` writes or a whole pickle.
"""

import builtins
import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


class Call:
    """Pickles as a call, with a state that is set on its result."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __call__(self) -> None:
        """Only what can be called may be the function of another call."""

    def __reduce__(self) -> Tuple:
        return (self.function, self.arguments) if self.state is None else (self.function, self.arguments, self.state)


def make_folder(traces: Path) -> Call:
    return Call(os.mkdir, str(traces))


def in_a_nested_file(traces: Path) -> Call:
    stream = io.BytesIO()
    torch.save(make_folder(traces), stream)
    return Call(torch.storage._load_from_bytes, stream.getvalue())


def object_array(traces: Path) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = make_folder(traces)
    return array


def getattr_chain(traces: Path) -> Call:
    """builtins of the module of an allowed class, by its method's globals."""
    module_globals = Call(getattr, Call(getattr, HistoryBuffer, 'update'), '__globals__')
    return Call(Call(getattr, module_globals, 'get'), '__builtins__')


CALLS: Dict[str, Callable[[Path], Any]] = {
    'os.mkdir': make_folder,
    'os.system': lambda traces: Call(os.system, f'mkdir {traces}'),
    'builtins.eval': lambda traces: Call(builtins.eval, f'__import__("os").mkdir({str(traces)!r})'),
    'builtins.exec': lambda traces: Call(builtins.exec, f'import os; os.mkdir({str(traces)!r})'),
    'builtins.__import__': lambda traces: Call(builtins.__import__, 'this'),
    'getattr of an allowed class': getattr_chain,
    'getattr of a statistic that is none': lambda traces: Call(getattr, HistoryBuffer, '__init__'),
    'a numpy array of objects': object_array,
    'a numpy dtype of objects': lambda traces: Call(np.dtype, 'O'),
    'a numpy dtype with fields': lambda traces: np.dtype([('a', 'f4')]),
    'a numpy dtype with other flags': lambda traces: Call(
        np.dtype, 'f4', False, True, state=(3, '<', None, None, None, -1, -1, 63)
    ),
    'a nested file in bytes': in_a_nested_file,
    'another codec': lambda traces: Call(__import__('_codecs').encode, 'os', 'punycode'),
    'a module': lambda traces: torch.nn.Linear(1, 1),
}


def instructions(*parts: Any) -> bytes:
    """A pickle of instructions, and of the pickled values among them."""
    body = b''.join(part if isinstance(part, bytes) else pickle.dumps(part, 2)[2:-1] for part in parts)
    return pickle.PROTO + b'\x02' + body + pickle.STOP


HISTORY = b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
REBUILD = b'ctorch._utils\n_rebuild_tensor_v2\n'


def storage(key: str = '0', length: int = 4, kind: bytes = b'ctorch\nFloatStorage\n', location: str = 'cpu') -> bytes:
    name = instructions('storage')[2:-1] + kind + instructions(key, location, length)[2:-1]
    return b'(' + name + b't' + pickle.BINPERSID


PICKLES: Dict[str, Callable[[Path], bytes]] = {
    'INST': lambda traces: b"(S'" + str(traces).encode() + b"'\nios\nmkdir\n.",
    'OBJ': lambda traces: instructions(b'(', b'cos\nmkdir\n', str(traces), b'o'),
    'NEWOBJ of another class': lambda traces: instructions(b'cos\nmkdir\n', (str(traces),), pickle.NEWOBJ),
    'NEWOBJ_EX': lambda traces: instructions(HISTORY, (), {}, pickle.NEWOBJ_EX),
    'EXT1': lambda traces: instructions(pickle.EXT1 + b'\x01'),
    'a numpy dtype of no kind': lambda traces: instructions(b'cnumpy\ndtype\n', ('(',), b'R'),
    'a tensor with an unknown flag': lambda traces: instructions(
        REBUILD, b'(', storage(), (0, (4,), (1,), False, None, dict(device='meta')), b't', b'R'
    ),
    'a call of a class that is only named': lambda traces: instructions(HISTORY, ([1], [1]), b'R'),
    'a call of a method': lambda traces: instructions(
        b'cbuiltins\ngetattr\n', b'(', HISTORY, 'mean', b't', b'R', (1,), b'R'
    ),
    'a history with other fields': lambda traces: instructions(
        HISTORY, (), pickle.NEWOBJ, dict(update=1, max_length=1), b'b'
    ),
    'attributes of an allowed class': lambda traces: instructions(HISTORY, (None, dict(mean=1)), b'b'),
    'attributes of an allowed function': lambda traces: instructions(REBUILD, (None, dict(__defaults__=(1,))), b'b'),
    'attributes of a dict': lambda traces: instructions(
        b'ccollections\nOrderedDict\n', (), b'R', dict(items=1), b'b'
    ),
    'items of a function': lambda traces: instructions(REBUILD, 'a', 1, b's'),
    'a list that is a function': lambda traces: instructions(REBUILD, 1, b'a'),
    'an entry of the memo that is not there': lambda traces: instructions(b'h\x07'),
    'a persistent id that is a call': lambda traces: instructions(
        b'cos\nmkdir\n', (str(traces),), b'R', pickle.BINPERSID
    ),
    'a persistent id of a module': lambda traces: instructions(('module', 'os', 'a', 'b'), pickle.BINPERSID),
    'a storage outside the file': lambda traces: instructions(storage('../../etc/passwd')),
    'a storage that is too long': lambda traces: instructions(storage(length=400)),
    'a tensor beyond its storage': lambda traces: instructions(
        REBUILD, b'(', storage(), 0, (5,), (1,), False, None, b't', b'R'
    ),
    'a tensor before its storage': lambda traces: instructions(
        REBUILD, b'(', storage(), -4, (1,), (1,), False, None, b't', b'R'
    ),
    'a tensor of negative strides': lambda traces: instructions(
        REBUILD, b'(', storage(), 0, (4,), (-1,), False, None, b't', b'R'
    ),
    'an array of raw pointers': lambda traces: instructions(
        b'cnumpy.core.multiarray\n_reconstruct\n', b'(', b'cnumpy\nndarray\n', (0,), b'U\x01b', b't', b'R',
        b'(', 1, (1,), b'cnumpy\ndtype\n', ('O', False, True), b'R', False, b'U\x08' + 8 * b'A', b't', b'b',
    ),
    'an array of another class': lambda traces: instructions(
        b'cnumpy.core.multiarray\n_reconstruct\n', b'(', HISTORY, (0,), b'U\x01b', b't', b'R'
    ),
}  # fmt: skip


def nested() -> bytes:
    """A tuple of two tuples of two tuples ..., 60 deep: a few hundred bytes with 2**60 parts."""
    return b')q\x000' + b''.join(b'h%ch%c\x86q%c0' % (i, i, i + 1) for i in range(60)) + b'h%c' % 60


def nested_sets() -> bytes:
    """A frozenset of a pair of a frozenset of a pair ...: each knows its hash, but two such chains are compared."""
    links = (b'(h%ch%c\x86%cq%c0' % (i, i, pickle.FROZENSET[0], i + 1) for i in range(60))
    return b'(' + pickle.FROZENSET + b'q\x000' + b''.join(links) + b'h%c' % 60


# A tensor of 10**9 numbers in four bytes.
WIDE = REBUILD + instructions(b'(', storage(), 0, (10**9,), (0,), False, None, b't', b'R')[2:-1]
ITERATING = ('builtins.set', 'builtins.frozenset', 'collections.Counter', 'collections.OrderedDict', 'torch.Size')
# Small files that would take more memory or time than there is.
BOMBS: Dict[str, bytes] = {
    'a call of a nested tuple': instructions(nested(), (), b'R'),
    'a state of a nested tuple': instructions(nested(), (), b'b'),
    'a state of a dict of nested tuples': instructions(b'}', 'a', nested(), b's', (), b'b'),
    'a new object of a nested tuple': instructions(nested(), (), pickle.NEWOBJ),
    'a nested tuple as a codec': instructions(b'c_codecs\nencode\n', b'(', 'a', nested(), b't', b'R'),
    'a nested tuple as an attribute': instructions(b'cbuiltins\ngetattr\n', b'(', HISTORY, nested(), b't', b'R'),
    'a nested tuple as a size': instructions(REBUILD, b'(', storage(), 0, nested(), (1, 1), False, None, b't', b'R'),
    'a nested tuple as a key': instructions(b'}', nested(), 1, b's'),
    'a nested tuple as one of the keys': instructions(b'}(', nested(), 1, b'u'),
    'a nested tuple in a set': instructions(pickle.EMPTY_SET, b'(', nested(), pickle.ADDITEMS),
    'a nested tuple in a frozenset': instructions(b'(', nested(), pickle.FROZENSET),
    'a nested tuple for a set': instructions(b'cbuiltins\nset\n', b'](', nested(), b'e\x85R'),
    'a nested tuple for a frozenset': instructions(b'cbuiltins\nfrozenset\n', b'](', nested(), b'e\x85R'),
    'a nested tuple for an OrderedDict': instructions(
        b'ccollections\nOrderedDict\n', b'](](', nested(), 1, b'ee\x85R'
    ),
    **{
        f'a wide tensor for {name}': instructions(b'c' + name.replace('.', '\n').encode() + b'\n', WIDE, b'\x85R')
        for name in ITERATING
    },
    'a wide tensor as flags': instructions(
        REBUILD, b'(', storage(), 0, (4,), (1,), False, None, WIDE, b't', b'R'
    ),
    'nested sets as keys': instructions(b'}(', nested_sets(), 1, nested_sets(), 2, b'u'),
    'many copies of bytes': instructions(
        pickle.BINBYTES + (10**5).to_bytes(4, 'little') + bytes(10**5) + b'q\x000](',
        *[b'cbuiltins\nbytearray\nh\x00\x85R'] * 200,
        b'e',
    ),
    'bytes beyond the end': instructions(b'\x96' + (10**9).to_bytes(8, 'little')),
}  # fmt: skip


def save_pickle(path: Path, content: bytes) -> None:
    """Write a file of ``torch.save`` with this pickle, and one storage of four numbers under the key '0'."""
    stream = io.BytesIO()
    torch.save(dict(a=torch.ones(4)), stream)
    with zipfile.ZipFile(stream) as good, zipfile.ZipFile(path, 'w') as hostile:
        for info in good.infolist():
            hostile.writestr(info.filename, content if info.filename.endswith('/data.pkl') else good.read(info))


def is_a_pickle(content: bytes) -> bool:
    """Whether the instructions are well-formed."""
    return list(pickletools.genops(content))[-1][0].name == 'STOP'
