# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The bytes behind the tensors of a checkpoint file, and the tensors that lie in them."""

import reprlib
import sys
from inspect import isroutine
from typing import Any, Callable, Dict, NamedTuple, Sequence, Tuple, Union

import numpy as np
import torch
from torch import Tensor
from torch.serialization import default_restore_location

MapLocation = Union[str, torch.device, Dict[str, str], Callable, None]

# What torch calls a storage of each dtype, as in torch.FloatStorage.
STORAGE_TYPES = dict(
    Float=torch.float32,
    Double=torch.float64,
    Half=torch.float16,
    BFloat16=torch.bfloat16,
    Long=torch.int64,
    Int=torch.int32,
    Short=torch.int16,
    Char=torch.int8,
    Byte=torch.uint8,
    Bool=torch.bool,
    ComplexFloat=torch.complex64,
    ComplexDouble=torch.complex128,
)


class MalformedError(ValueError):
    """The file contradicts itself, as no file of ``torch.save`` does."""


def shown(value: Any) -> str:
    """A value of a file, for a message. The ``repr`` of tuples that hold one another may be longer than any memory."""
    if isinstance(value, (str, bytes, type, np.dtype)) or isroutine(value):
        return reprlib.repr(value)
    return f'a {type(value).__name__}'


class Storage(NamedTuple):
    """Bytes of a file, and the type of the numbers in them."""

    dtype: torch.dtype
    content: torch.UntypedStorage

    def view(self, offset: int, size: Sequence[int], stride: Sequence[int]) -> Tensor:
        """A tensor over these bytes.

        Args:
            offset: Index of its first element.
            size: Its shape.
            stride: Elements from one index to the next, for each dimension.

        Raises:
            MalformedError: If it would reach beyond the bytes. torch itself does not check that in every version.
        """
        if len(size) != len(stride) or not all(type(value) is int and value >= 0 for value in (offset, *size, *stride)):
            raise MalformedError('a tensor whose size, stride and offset are no whole numbers from 0 on')
        last = offset + sum((length - 1) * step for length, step in zip(size, stride))
        if 0 not in size and (last + 1) * item_size(self.dtype) > self.content.nbytes():
            raise MalformedError(f'a tensor of size {tuple(size)} reaches beyond its {self.content.nbytes()} bytes')
        empty = torch.empty(0, dtype=self.dtype, device=self.content.device)
        return empty.set_(self.content, offset, tuple(size), tuple(stride))


class StorageName(NamedTuple):
    """How the pickle of a checkpoint names a storage."""

    dtype: torch.dtype
    key: str
    location: str  # the device that it was on, such as 'cuda:0'
    num_bytes: int


def parse_storage_name(name: Any) -> StorageName:
    """Check the persistent id of a storage.

    Args:
        name: ('storage', type, key, location, number of elements), with one more item in the format of torch below 1.6.

    Raises:
        MalformedError: If it is anything else.
    """
    if (
        not isinstance(name, tuple)
        or len(name) not in (5, 6)
        or name[0] != 'storage'
        or (*name[5:], None)[0] is not None
    ):
        raise MalformedError('a reference to something that is no storage')
    dtype, key, location, length = name[1:5]
    if not (isinstance(dtype, torch.dtype) and isinstance(key, str) and isinstance(location, str)):
        raise MalformedError('a storage without a type, a name or a device')
    if type(length) is not int or length < 0:
        raise MalformedError('a storage whose length is no whole number from 0 on')
    return StorageName(dtype, key, location, length * item_size(dtype))


def item_size(dtype: torch.dtype) -> int:
    """Bytes of one element."""
    return torch.empty(0, dtype=dtype).element_size()


def new_storage(num_bytes: int) -> Tuple[torch.UntypedStorage, memoryview]:
    """A storage on the CPU, and its bytes to write to."""
    buffer = torch.empty(num_bytes, dtype=torch.uint8)
    return buffer.untyped_storage(), memoryview(buffer.numpy())


def restore_location(storage: torch.UntypedStorage, location: str, map_location: MapLocation) -> torch.UntypedStorage:
    """Move a storage to where ``torch.load`` would put it for this ``map_location``."""
    if isinstance(map_location, dict):
        location = map_location.get(location, location)
    elif isinstance(map_location, (str, torch.device)):
        location = str(map_location)
    elif map_location is not None:
        moved = map_location(storage, location)
        if moved is not None:
            return moved
    return default_restore_location(storage, location)


def check_byte_order(little_endian: bool) -> None:
    """Refuse a file of a computer with the other order of bytes."""
    if little_endian != (sys.byteorder == 'little'):
        raise MalformedError('numbers in the byte order of another kind of computer')
