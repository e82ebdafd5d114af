# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write a config as a file that inherits from another config and contains only the changes."""

import ast
import difflib
import keyword
import os
import re
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, Iterator, Optional, Set, Tuple, Union

from mmengine.config import Config
from mmengine.config.config import LazyAttr, LazyObject
from mmengine.config.utils import MODULE2PACKAGE
from yapf.yapflib.errors import YapfError
from yapf.yapflib.yapf_api import FormatCode

from mmpanet.utils.configs import config_path, load_config
from mmpanet.utils.errors import ConfigError
from mmpanet.utils.files import PathLike, write_text
from .config import is_new_style
from .targets import check_target

LAZY = (LazyObject, LazyAttr)  # a class in a new-style config, before it is used


def write_config(cfg: Config, base: PathLike, out: PathLike) -> str:
    """Write ``cfg`` to the file ``out``, as a config that inherits from ``base``.

    The text is loaded and compared with ``cfg`` before it is written. If a short text does not give the same config,
    or if ``out`` is a link, the whole config is written.

    Args:
        cfg: The config to write.
        base: Path or ``mmdet::`` name of the config from which ``cfg`` was made.
        out: The file to write, ``.py``.

    Returns:
        str: The text that was written.

    Raises:
        ConfigError: If ``out`` cannot be written, or if ``cfg`` contains values that a config file cannot contain.
    """
    out = Path(out)
    check_config_target(out, base)
    out.parent.mkdir(parents=True, exist_ok=True)
    # A file that is a link has two folders, from which a relative base would be another file.
    sources = [] if out.is_symlink() else [partial(inheriting_source, cfg, base, out)]
    for source in (*sources, cfg.dump):
        try:
            text = source()
        except (SyntaxError, YapfError):  # a value has no form in Python
            continue
        if text is not None and _gives(text, cfg, out.parent):
            write_text(out, text)
            return text
    raise ConfigError(
        f'{base} contains values that a config file cannot contain; use mmpanet.swap.swap_config in Python instead'
    )


def _gives(text: str, cfg: Config, folder: Path) -> bool:
    """Whether a config file with this text in this folder, on which relative bases depend, gives ``cfg``."""
    handle, path = tempfile.mkstemp(dir=folder, prefix='unchecked_', suffix='.py')
    try:
        with open(handle, 'w') as file:
            file.write(text)
        return _settings(Config.fromfile(path)) == _settings(cfg)
    except Exception:  # a text that is no Python, or names what is not there, may raise anything
        return False
    finally:
        os.unlink(path)


def check_config_target(out: PathLike, base: PathLike) -> None:
    """Check that :func:`write_config` can write ``out``.

    Raises:
        ConfigError: If ``out`` is not a ``.py`` file, cannot be written, or is ``base`` itself or a file that it
            inherits from.
    """
    if Path(out).suffix != '.py':
        raise ConfigError(f'{out} must be a .py file')
    source = config_path(base)
    check_target(out, source, 'config', ConfigError)
    for ancestor in _ancestors(source) if Path(out).exists() else ():
        if ancestor.exists() and Path(out).samefile(ancestor):
            raise ConfigError(f'{out}: the config to swap inherits from it; give the new one another name')


def _ancestors(config: Path) -> Iterator[Path]:
    """The files that a config inherits from, of both styles."""
    files = [config]
    for file in files:  # which grows meanwhile
        for base in _bases_of(file):
            if base not in files:
                files.append(base)
                yield base


def _bases_of(file: Path) -> Iterator[Path]:
    if not file.is_file():
        return
    if not Config._is_lazy_import(str(file)):
        for name in Config._get_base_files(str(file)):
            yield Path(Config._get_cfg_path(name, str(file))[0])
        return
    for block in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        for line in block.body if isinstance(block, ast.With) else ():  # with read_base():
            if isinstance(line, ast.ImportFrom) and line.level:
                folder = file.absolute().parents[line.level - 1]
                for module in [line.module] if line.module else [one.name for one in line.names]:
                    yield folder.joinpath(*module.split('.')).with_suffix('.py')


def inheriting_source(cfg: Config, base: PathLike, out: PathLike) -> Optional[str]:
    """The text of a config at ``out`` that inherits from ``base``, or None if there is no such text."""
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
    lines.sort(key=lambda line: not line.startswith('custom_imports'))  # it stands first, as in mmdet's own configs
    style = dict(based_on_style='pep8', split_before_expression_after_opening_paren=True)
    return FormatCode('\n\n'.join(['\n'.join(head), *lines]) + '\n', style_config=style)[0]


def config_diff(old: Config, new: Config) -> str:
    """The lines in which the full configs differ, with one line around them."""
    lines = difflib.unified_diff(
        old.pretty_text.splitlines(), new.pretty_text.splitlines(), 'before', 'after', lineterm='', n=1
    )
    return '\n'.join(lines)


def _settings(cfg: Config) -> Any:
    """A config as plain values, without the scopes that mmengine adds to the dicts of another package's config."""

    def plain(value: Any) -> Any:
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


def _base_name(base: PathLike, out: Path) -> str:
    """The value of ``_base_``: the ``mmdet::`` name of an installed package's config, or a path relative to ``out``.

    mmengine does not accept names with folders such as ``gn+ws``, and knows OpenMMLab's own packages only. For other
    names the value is a path, too.
    """
    path = config_path(base).resolve()
    package, found, name = path.as_posix().rpartition('/.mim/configs/')
    if '::' in os.fspath(base):
        name = f'{os.fspath(base).partition("::")[0]}::{name}'
    elif found and 'site-packages' in package:
        name = f'{Path(package).name}::{name}'
    if re.match(r'\w+::\w+/', name) and name.partition('::')[0] in MODULE2PACKAGE:
        return name
    return Path(os.path.relpath(path, out.resolve().parent)).as_posix()


def _relative_module(base: Path, out: Path) -> Optional[str]:
    """``..folder.base`` as seen from ``out``, or None if a part of the path cannot be the name of a module."""
    *parents, name = Path(os.path.relpath(base.resolve().with_suffix(''), out.resolve().parent)).parts
    ups = sum(part == '..' for part in parents)
    parts = [*parents[ups:], name]
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        return None
    return '.' * (ups + 1) + '.'.join(parts)


class _TextSource:
    """Python source of the changes, for configs with names as types and with ``_base_``."""

    def assignment(self, key: str, old: Any, new: Any) -> str:
        """The statement that changes a key from ``old`` to ``new``."""
        return f'{key} = {self.change(old, new, f"_base_.{key}")}'

    def change(self, old: Any, new: Any, base: str) -> str:
        """The expression that a child config needs to get ``new`` where its base has ``old``.

        Args:
            old: The value in the base.
            new: The value that the child is to have.
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
        """An expression for ``new`` that uses ``base``, the expression for ``old``, because lists are not merged."""
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
        """The source of ``dict(base, key=value)``, from values that are source already."""
        if not all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in items):
            pairs = [f'**{base}'] if base else []
            return '{' + ', '.join([*pairs, *(f'{key!r}: {value}' for key, value in items.items())]) + '}'
        return f'dict({", ".join([*([base] if base else []), *(f"{key}={value}" for key, value in items.items())])})'

    def literal(self, value: Any) -> str:
        """The source of a value."""
        if isinstance(value, dict):
            return self._call({key: self.literal(item) for key, item in value.items()})
        if isinstance(value, list):
            return f'[{", ".join(map(self.literal, value))}]'
        if isinstance(value, tuple):
            return f'({"".join(self.literal(item) + ", " for item in value)})'
        return repr(value)


class _NewStyleSource(_TextSource):
    """Python source of the changes, for configs with classes as types and with ``read_base()``."""

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
