# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Load configs, with a clear error for a config that cannot be loaded."""

import importlib.util
import os
from pathlib import Path
from typing import Any, Container, Iterator, Optional, Tuple

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

from .errors import ConfigError
from .files import PathLike


def load_config(config: PathLike, options: Optional[dict] = None) -> Config:
    """Load a config by path, or by a name such as ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``.

    Args:
        config: Path or name.
        options: Settings that override those of the config, by dotted keys, in the form of ``--cfg-options``.

    Raises:
        ConfigError: If there is no such config, if it is not a valid config, if it imports a module that is not
            installed, if its code raises any other error, or if an option does not fit.
    """
    path = config_path(config)
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        # mmengine adds sys.path to its message, and keeps the original error as the cause.
        cause = error.__cause__ or error.__context__ or error
        reason = str(cause).partition(', the current sys.path')[0]
        raise ConfigError(f'config {config}: imports a module that is not installed: {reason}') from error
    except SyntaxError as error:
        raise ConfigError(f'config {config}: syntax error: {error}') from error
    except OSError as error:
        raise ConfigError(f'config {config}: {error}') from error
    except Exception as error:  # a config is Python code, which can raise anything
        reason = ' '.join(str(error).split())
        raise ConfigError(f'config {config}: cannot be read: {type(error).__name__}: {reason}') from error
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError) as error:
        raise ConfigError(f'--cfg-options {options}: {error.args[0]}') from error
    scope = cfg.get('default_scope')
    if not isinstance(scope, (str, type(None))):
        raise ConfigError(f"config {config}: default_scope={scope!r}, it takes the name of a scope, such as 'mmdet'")
    return cfg


def type_name(type_: Any) -> str:
    """The name of the class that a ``type`` of a config means, without scope and module.

    Args:
        type_: A name, a name with a scope, a dotted path, or a class.
    """
    return type_.rpartition('.')[2] if isinstance(type_, str) else getattr(type_, '__name__', str(type_))


def dicts_in(node: Any, key: str, skip: Container[str] = ()) -> Iterator[Tuple[str, dict]]:
    """Each dict in a config with its place, such as ``model.bbox_head[0]``, from the outermost inwards.

    Args:
        node: The config, or a part of it.
        key: The place of this part.
        skip: Keys whose values are passed over.
    """
    if isinstance(node, dict):
        yield key, node
        for name, value in node.items():
            if name not in skip:
                yield from dicts_in(value, f'{key}.{name}', skip)
    elif isinstance(node, (list, tuple)):
        for i, item in enumerate(node):
            yield from dicts_in(item, f'{key}[{i}]', skip)


def config_path(config: PathLike) -> Path:
    """Find the file that a path or a ``package::name`` stands for.

    Raises:
        ConfigError: If there is no such file or package.
    """
    config = os.fspath(config)
    if '::' not in config:
        path = Path(config)
        if not path.is_file():
            raise ConfigError(f'config {config}: no such file')
        return path
    scope, _, name = config.partition('::')
    try:
        package = get_installed_path(MODULE2PACKAGE.get(scope, scope))
    except Exception as error:  # get_installed_path raises any error of the package metadata
        reason = f'the package {scope!r} is not installed'
        if getattr(error, 'name', None) == 'pkg_resources' and importlib.util.find_spec(scope):
            reason = "mmengine needs pkg_resources, which setuptools 82 removed: pip install 'setuptools<81'"
        raise ConfigError(f'config {config}: {reason}') from error
    root = Path(package, '.mim', 'configs')
    if not name.endswith('.py'):
        name += '.py'
    if (root / name).is_file():
        return root / name
    by_name = sorted(root.rglob(Path(name).name))
    if len(by_name) != 1:
        raise ConfigError(
            f'config {config}: {scope!r} has no such config'
            + ''.join(f'; did you mean {scope}::{path.relative_to(root)}?' for path in by_name)
        )
    return by_name[0]
