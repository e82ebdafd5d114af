# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Writes a config as what it changes of another one."""

import difflib
import keyword
import os
import re
from pathlib import Path
from typing import Any, Optional, Set, Tuple, Union

from mmengine.config import Config
from mmengine.config.config import LazyAttr, LazyObject
from yapf.yapflib.yapf_api import FormatCode

from mmpanet.utils.configs import config_path, load_config
from .config import check_target, is_new_style
from .types import SwapError

LAZY = (LazyObject, LazyAttr)  # what a class in a new-style config is until it is needed


def write_config(cfg: Config, base: Union[str, os.PathLike], out: Union[str, os.PathLike]) -> str:
    """Write ``cfg`` to the file ``out``, as a config that inherits from ``base``.

    What was written is loaded again and compared; where a config cannot say in short what it is to be, all of it is
    written.

    Args:
        cfg: The config to write.
        base: Path or ``mmdet::`` name of the config that it was made from.
        out: The file to write, ``.py``.

    Returns:
        str: What was written.
    """
    out = Path(out)
    check_config_target(out, base)
    out.parent.mkdir(parents=True, exist_ok=True)
    before = out.read_text() if out.exists() else None
    source = inheriting_source(cfg, base, out)
    try:
        if source is not None:
            out.write_text(source)
            if _settings(Config.fromfile(out)) == _settings(cfg):
                return source
        out.write_text(cfg.dump())
        if _settings(Config.fromfile(out)) != _settings(cfg):
            raise SwapError(f'{base} holds what no config file can say; use mmpanet.swap.swap_config on it instead')
    except Exception:
        if before is None:
            out.unlink()
        else:
            out.write_text(before)
        raise
    return out.read_text()


def check_config_target(out: Union[str, os.PathLike], base: Union[str, os.PathLike]) -> None:
    """Refuse what :func:`write_config` would, before anything else is written.

    Raises:
        SwapError: If ``out`` is no ``.py`` file, cannot be written, or is ``base`` itself.
    """
    if Path(out).suffix != '.py':
        raise SwapError(f'{out} must be a .py file')
    check_target(out, config_path(base), 'config')


def inheriting_source(cfg: Config, base: Union[str, os.PathLike], out: Union[str, os.PathLike]) -> Optional[str]:
    """The text of a config that inherits from ``base`` and lies at ``out``; None where there is no such text."""
    base_cfg = load_config(base)
    new_style = is_new_style(base_cfg)
    old, new = base_cfg._to_lazy_dict(), cfg._to_lazy_dict()
    if new_style:
        module = _relative_module(config_path(base), Path(out))
        if module is None or old.keys() - new.keys():
            return None
        writer: _TextSource = _NewStyleSource()
    else:
        if old.keys() - new.keys():
            return None
        writer = _TextSource()
    lines = []
    for key in new:
        if key not in old:
            lines.append(f'{key} = {writer.literal(new[key])}')
        elif not _equal(old[key], new[key]):
            lines.append(writer.assignment(key, old[key], new[key]))
    if isinstance(writer, _NewStyleSource):
        head = [
            'from mmengine.config import read_base\n',
            'with read_base():',
            f'    from {module} import *',
            *(f'from {module} import {name}' for module, name in sorted(writer.imports)),
        ]
    else:
        head = [f'_base_ = {_base_name(base, Path(out))!r}']
    lines.sort(key=lambda line: not line.startswith('custom_imports'))  # first, as in mmdet's own configs
    style = dict(based_on_style='pep8', split_before_expression_after_opening_paren=True)
    return FormatCode('\n\n'.join(['\n'.join(head), *lines]) + '\n', style_config=style)[0]


def config_diff(old: Config, new: Config, context: int = 1) -> str:
    """The lines of the full configs that differ."""
    lines = difflib.unified_diff(
        old.pretty_text.splitlines(), new.pretty_text.splitlines(), 'before', 'after', lineterm='', n=context
    )
    return '\n'.join(lines)


def _settings(cfg: Config) -> Any:
    """A config as plain values, without the scopes that mmengine adds to what another package's config says."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items() if key != '_scope_'}
        if isinstance(value, (list, tuple)):
            return type(value)(plain(item) for item in value)
        return value

    return plain(cfg.to_dict())


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, LAZY) and isinstance(b, LAZY):
        return _dotted_name(a) == _dotted_name(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_equal, a, b))
    return type(a) is type(b) and a == b


def _dotted_name(lazy: Union[LazyObject, LazyAttr]) -> str:
    return f'{lazy.module}.{lazy}'


def _base_name(base: Union[str, os.PathLike], out: Path) -> str:
    """What ``_base_`` says: the ``mmdet::`` name of an installed package's config, or a path relative to ``out``.

    mmengine takes no name of a folder like ``gn+ws``: that becomes a path, too.
    """
    path = config_path(base).resolve()
    package, found, name = path.as_posix().rpartition('/.mim/configs/')
    if '::' in os.fspath(base):
        name = f'{os.fspath(base).partition("::")[0]}::{name}'
    elif found and 'site-packages' in package:
        name = f'{Path(package).name}::{name}'
    if re.match(r'\w+::\w+/', name):
        return name
    return Path(os.path.relpath(path, out.resolve().parent)).as_posix()


def _relative_module(base: Path, out: Path) -> Optional[str]:
    """``..folder.base`` as seen from ``out``; None if a part of the path is no name of a module."""
    *parents, name = Path(os.path.relpath(base.resolve().with_suffix(''), out.resolve().parent)).parts
    ups = sum(part == '..' for part in parents)
    parts = [*parents[ups:], name]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return None
    return '.' * (ups + 1) + '.'.join(parts)


class _TextSource:
    """Python source of what changes, for configs of names and ``_base_``."""

    def assignment(self, key: str, old: Any, new: Any) -> str:
        return f'{key} = {self.change(old, new, f"_base_.{key}")}'

    def change(self, old: Any, new: Any, base: str) -> str:
        """What a child config says where its base says ``old``, and ``new`` is meant.

        Args:
            base: An expression for ``old``.
        """
        if isinstance(new, dict):
            if not isinstance(old, dict) or old.keys() - new.keys():
                return self.literal({'_delete_': True, **new})
            return self._call(
                {
                    key: self.change(old[key], new[key], f'{base}.{key}') if key in old else self.literal(new[key])
                    for key in new
                    if key not in old or not _equal(old[key], new[key])
                }
            )
        return self.rebuilt(old, new, base)

    def rebuilt(self, old: Any, new: Any, base: str) -> str:
        """An expression for ``new`` that makes use of ``base``, which is one for ``old``: lists do not merge."""
        if _equal(old, new):
            return base
        if isinstance(old, dict) and isinstance(new, dict) and not old.keys() - new.keys():
            return self._call(
                {
                    key: self.rebuilt(old[key], new[key], f'{base}.{key}') if key in old else self.literal(new[key])
                    for key in new
                    if key not in old or not _equal(old[key], new[key])
                },
                base,
            )
        if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            alike = {self.rebuilt(a, b, 'stage') for a, b in zip(old, new)}
            if len(alike) == 1 and len(new) > 1:
                return f'[{alike.pop()} for stage in {base}]'
            return f'[{", ".join(self.rebuilt(a, b, f"{base}[{i}]") for i, (a, b) in enumerate(zip(old, new)))}]'
        return self.literal(new)

    def _call(self, items: dict, base: Optional[str] = None) -> str:
        """``dict(base, key=value)`` of values that are source already."""
        if not all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in items):
            pairs = [f'**{base}'] if base else []
            return '{' + ', '.join([*pairs, *(f'{key!r}: {value}' for key, value in items.items())]) + '}'
        return f'dict({", ".join([*([base] if base else []), *(f"{key}={value}" for key, value in items.items())])})'

    def literal(self, value: Any) -> str:
        if isinstance(value, dict):
            return self._call({key: self.literal(item) for key, item in value.items()})
        if isinstance(value, list):
            return f'[{", ".join(map(self.literal, value))}]'
        if isinstance(value, tuple):
            return f'({"".join(self.literal(item) + ", " for item in value)})'
        return repr(value)


class _NewStyleSource(_TextSource):
    """The same for configs of classes and ``read_base()``."""

    def __init__(self) -> None:
        self.imports: Set[Tuple[str, str]] = set()

    def assignment(self, key: str, old: Any, new: Any) -> str:
        if isinstance(old, dict) and isinstance(new, dict) and not old.keys() - new.keys():
            return f'{key}.merge({self.change(old, new, key)})'
        return f'{key} = {self.rebuilt(old, new, key)}'

    def literal(self, value: Any) -> str:
        if isinstance(value, LAZY):
            module, _, name = _dotted_name(value).rpartition('.')
            self.imports.add((module, name))
            return name
        return super().literal(value)
