# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmengine reads every checkpoint as data: its loaders for files, URLs and model zoos are replaced by ours.

``--resume``, ``load_from``, ``tools/test.py``, ``DetInferencer`` and ``init_cfg=dict(type='Pretrained')`` all ask
mmengine's ``CheckpointLoader``, which hands the file to ``torch.load``. That runs code of the file below torch 2.6, and
for URLs in every version (``torch.hub`` passes ``weights_only=False``). The onedl fork of mmengine falls back to
``weights_only=False`` when the safe way fails. :func:`register_loaders` puts :func:`.files.load_untrusted` in their
place; ``import mmpanet`` calls it. Loaders that others register for schemes of their own stay.

A config inside of a checkpoint is a program. ``DetInferencer`` runs it if it gets weights and no config.
"""

import hashlib
import io
import os
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Dict
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmpanet.utils.errors import CheckpointError
from mmpanet.utils.files import write_text
from .files import DamagedError, load_untrusted
from .storages import MapLocation

WEB, CLUSTER = ('http://', 'https://'), (r'(\S+\:)?s3://', r'(\S+\:)?petrel://')
MODEL_ZOOS = ('modelzoo://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://')


def register_loaders() -> None:
    """Let mmengine's ``CheckpointLoader`` read files, URLs and model zoos as data."""
    for prefixes, loader in [
        ('', load_from_local),
        (WEB, load_from_http),
        (CLUSTER, load_from_cluster),
        (MODEL_ZOOS, load_from_model_zoo),
        ('pavi://', refuse_scheme),
    ]:
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


def load_from_local(filename: str, map_location: MapLocation = None) -> Dict[str, Any]:
    """A local file; ``~`` is the home folder."""
    return load_untrusted(os.path.expanduser(filename), map_location)


def load_from_http(filename: str, map_location: MapLocation = None) -> Dict[str, Any]:
    """A URL. It is downloaded once per machine, to where ``torch.hub`` keeps checkpoints.

    In a distributed run the first process downloads, and the others wait. On a machine that does not see its file, they
    download then. A file that was cut off on its way is removed again.
    """
    path = _place_of_download(filename)
    if is_main_process():
        _download(filename, path)
    barrier()
    _download(filename, path)
    try:
        return load_untrusted(path, map_location)
    except DamagedError:
        with suppress(OSError):
            path.unlink()
        raise


def _place_of_download(url: str) -> Path:
    """Where the file of a URL lies, or will lie.

    It has the name that ``torch.hub`` would give it, and beside it a note of its URL. If this is the file of another
    URL, such as the ``epoch_12.pth`` of another training, the name gets a hash of the URL.
    """
    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(url).path).name)
    origin = _origin_of(path)
    if path.is_file() and origin.is_file() and origin.read_text(encoding='utf-8') != url:
        return path.with_name(f'{path.stem}-{hashlib.sha256(url.encode()).hexdigest()[:16]}{path.suffix}')
    return path


def _origin_of(path: Path) -> Path:
    """The file that says which URL a downloaded file is from."""
    return path.with_name(f'{path.name}.url')


def _download(url: str, path: Path) -> None:
    """Download a file if it is not there. torch gives it its name when it is whole."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), progress=os.isatty(0))
        write_text(_origin_of(path), url)
    except (OSError, HTTPException, ValueError) as error:
        raise CheckpointError(f'checkpoint {url}: cannot be downloaded: {error}') from error


def load_from_cluster(filename: str, map_location: MapLocation = None) -> Dict[str, Any]:
    """A file in S3 or petrel."""
    backend = get_file_backend(filename, backend_args=dict(backend='petrel'))
    with io.BytesIO(backend.get(filename)) as stream:
        return load_untrusted(stream, map_location)


def load_from_model_zoo(filename: str, map_location: MapLocation = None) -> Dict[str, Any]:
    """A name such as ``torchvision://resnet50``, of the tables that mmengine has."""
    scheme, _, name = filename.partition('://')
    if scheme in ('modelzoo', 'torchvision'):
        urls = mmengine_checkpoint.get_torchvision_models()
    elif scheme == 'mmcls':
        urls = mmengine_checkpoint.get_mmcls_models()
    else:
        urls = mmengine_checkpoint.get_external_models()
        name = mmengine_checkpoint.get_deprecated_model_names().get(name, name)
    if name not in urls:
        raise CheckpointError(f'checkpoint {filename}: mmengine knows no model of this name')
    url = urls[name]
    if not url.startswith(WEB):
        return load_from_local(os.path.join(mmengine_checkpoint._get_mmengine_home(), url), map_location)
    checkpoint = load_from_http(url, map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint) if scheme == 'mmcls' else checkpoint


def refuse_scheme(filename: str, map_location: MapLocation = None) -> Dict[str, Any]:
    """A place whose files mmengine would unpickle as they are."""
    raise CheckpointError(f'checkpoint {filename}: is not read from there; download it, and name the file')
