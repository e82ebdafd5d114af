# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reading checkpoints from elsewhere as data, without running code of theirs, and checking where to write one.

A file of ``torch.save`` is a zip archive with one pickle and the bytes of every storage, or before torch 1.6 a row of
pickles with those bytes behind them. Both are read here rather than by ``torch.load``, which runs code of the file
below torch 2.6, and afterwards too in old formats and in TorchScript archives.
"""

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any, Dict, List, Union

import torch
from torch import Tensor

from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import PathLike, atomic_write
from .data_unpickler import DataUnpickler, refuse_storage
from .known_content import UnknownContentError
from .matching import without_wrappers
from .storages import (
    MalformedError,
    MapLocation,
    Storage,
    StorageName,
    check_byte_order,
    new_storage,
    parse_storage_name,
    restore_location,
)

PLAIN_BYTES = 2**20  # of the small pickles around the content of the older format
ZIP_START = b'PK\x03\x04'
LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001  # torch.serialization.MAGIC_NUMBER, PROTOCOL_VERSION


def save_checkpoint(checkpoint: Dict[str, Any], path: PathLike) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        OSError: If it cannot be written, for example because the disk is full. ``torch.save`` itself raises a
            RuntimeError of its zip writer.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with atomic_write(path) as part:
        part.write_bytes(content.getbuffer())


class DamagedError(CheckpointError):
    """A file that is not what was written."""


def load_untrusted(source: Union[PathLike, IO[bytes]], map_location: MapLocation = 'cpu') -> Dict[str, Any]:
    """Read a checkpoint from elsewhere, as data only.

    Args:
        source: A file that ``torch.save`` wrote, or its open stream.
        map_location: As for ``torch.load``.

    Returns:
        Its content, with dense tensors, plain Python data, numpy's numbers and arrays, and what mmengine's message hub
        holds. A ``ConfigDict`` of mmengine's is a dict in it. The names of weights are those of the model without
        wrappers such as DistributedDataParallel. ``meta['config']`` is left out.

    Raises:
        CheckpointError: If it is not there, is no such file, is cut off or damaged, or holds anything that would have
            to be executed to be read.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _load_stream(source, 'checkpoint', map_location)
    name = f'checkpoint {os.fspath(source)}'
    try:
        with open(source, 'rb') as stream:
            return _load_stream(stream, name, map_location)
    except OSError as error:
        raise CheckpointError(f'{name}: cannot be read: {error.strerror or error}') from error


def _load_stream(stream: IO[bytes], name: str, map_location: MapLocation) -> Dict[str, Any]:
    start = stream.read(len(ZIP_START))
    stream.seek(0)
    if not start:
        raise CheckpointError(f'{name}: is empty')
    try:
        content = (_load_zip if start == ZIP_START else _load_legacy)(stream, map_location)
    except UnknownContentError as error:
        raise CheckpointError(
            f'{name}: is not read, because it holds {error}, and only tensors and plain data can be read without '
            'running code of the file. If you trust it, save just its state dict where it was made'
        ) from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise DamagedError(f'{name}: is cut off or damaged ({error or "it ends too early"}); get it again') from error
    except (MalformedError, pickle.UnpicklingError, *_FAULTS_OF_CONTENT) as error:
        raise CheckpointError(f'{name}: is no checkpoint of torch.save ({error})') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{name}: holds a {type(content).__name__}, and a checkpoint is a dict')
    meta = content.get('meta')
    if isinstance(meta, dict):
        meta.pop('config', None)  # of MMDetection 2.x: a Python program, which mmengine would run to resume
    elif meta is not None and not isinstance(meta, Tensor):
        raise CheckpointError(f"{name}: holds a {type(meta).__name__} under 'meta', where a checkpoint has a dict")
    for key in ('state_dict', 'model'):  # mmengine's, and the PANet authors'
        if isinstance(content.get(key), dict):
            content[key] = without_wrappers(content[key])
    return without_wrappers(content)


# What wrong arguments of a function, or wrong bytes of a string, raise.
_FAULTS_OF_CONTENT = (TypeError, ValueError, IndexError, AttributeError, OverflowError, MemoryError, RuntimeError)


def _load_zip(stream: IO[bytes], map_location: MapLocation) -> Any:
    """The format since torch 1.6: ``<name>/data.pkl``, ``<name>/data/<key>`` for each storage, and a few more."""
    with zipfile.ZipFile(stream) as archive:
        entries = {info.filename.partition('/')[2]: info for info in archive.infolist()}
        if 'constants.pkl' in entries:
            raise UnknownContentError('a TorchScript program')
        if 'data.pkl' not in entries:
            raise MalformedError('a zip archive without data.pkl')
        file_size = stream.seek(0, os.SEEK_END)
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
            raise MalformedError('a zip archive that is compressed')
        if sum(info.file_size for info in entries.values()) > file_size:
            raise MalformedError('a zip archive whose files are larger than itself')
        if 'byteorder' in entries:
            check_byte_order(archive.read(entries['byteorder']) == b'little')
        storages: Dict[str, torch.UntypedStorage] = {}

        def load_storage(persistent_id: Any) -> Storage:
            stored = parse_storage_name(persistent_id)
            if stored.key not in storages:
                info = entries.get(f'data/{stored.key}')
                if info is None or info.file_size != stored.num_bytes:
                    raise MalformedError(f'storage {stored.key} is not of its {stored.num_bytes} bytes')
                storage, content = new_storage(stored.num_bytes)
                with archive.open(info) as record:
                    _read_into(record, content)
                storages[stored.key] = restore_location(storage, stored.location, map_location)
            elif storages[stored.key].nbytes() != stored.num_bytes:
                raise MalformedError(f'storage {stored.key} has two sizes')
            return Storage(stored.dtype, storages[stored.key])

        pickled = archive.read(entries['data.pkl'])
        return DataUnpickler(io.BytesIO(pickled), load_storage, len(pickled)).load()


def _load_legacy(stream: IO[bytes], map_location: MapLocation) -> Any:
    """The format before torch 1.6: pickles of the format, the content and the keys of storages, then their bytes."""
    try:
        is_checkpoint = _load_plain(stream) == LEGACY_MAGIC and _load_plain(stream) == LEGACY_VERSION
    except EOFError:
        raise
    except Exception as error:
        raise MalformedError('it starts with none of the formats of torch.save') from error
    if not is_checkpoint:
        raise MalformedError('it starts with none of the formats of torch.save')
    check_byte_order(_load_plain(stream).get('little_endian') is True)
    start, file_size = stream.tell(), stream.seek(0, os.SEEK_END)
    stream.seek(start)
    named: Dict[str, StorageName] = {}
    storages: Dict[str, torch.UntypedStorage] = {}
    left = file_size  # bytes that further storages may have

    def promise_storage(persistent_id: Any) -> Storage:
        """Its content comes behind the pickle."""
        nonlocal left
        stored = parse_storage_name(persistent_id)
        if named.setdefault(stored.key, stored).num_bytes != stored.num_bytes:
            raise MalformedError(f'storage {stored.key} has two sizes')
        if stored.key not in storages:
            left -= stored.num_bytes
            if left < 0:
                raise EOFError(f'storage {stored.key} has {stored.num_bytes} bytes')
            storages[stored.key] = restore_location(new_storage(stored.num_bytes)[0], stored.location, map_location)
        return Storage(stored.dtype, storages[stored.key])

    content = DataUnpickler(stream, promise_storage, file_size).load()
    keys: List[str] = _load_plain(stream)
    if not all(isinstance(key, str) for key in keys) or sorted(keys) != sorted(storages):
        raise MalformedError('the list of storages does not fit the content')
    for key in keys:
        storage, buffer = new_storage(named[key].num_bytes)
        stream.read(8)  # its number of elements, which the pickle says too
        _read_into(stream, buffer)
        storages[key].copy_(storage)
    return content


def _load_plain(stream: IO[bytes]) -> Any:
    return DataUnpickler(stream, refuse_storage, PLAIN_BYTES).load()


def _read_into(stream: IO[bytes], content: memoryview) -> None:
    done = 0
    while done < len(content):
        count = stream.readinto(content[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f'{len(content) - done} bytes of a tensor are missing')
        done += count


def check_paths(source: PathLike, target: PathLike) -> None:
    """Refuse a target that is the source, or in a folder that is not there."""
    source, target = Path(source), Path(target)
    if target.exists() and source.exists() and target.samefile(source):
        raise CheckpointError(f'{source}: would be overwritten by its own conversion; name another target')
    if not target.parent.is_dir():
        raise CheckpointError(f'{target.parent}: no such folder to write to')
