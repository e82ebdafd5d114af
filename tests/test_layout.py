# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The package as a house: what imports what, the size of files, and what each file starts with."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest
from repository import ROOT

PACKAGE = ROOT / 'mmpanet'
HEADER = '# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.'
LARGEST_FILE = 300  # lines, without those of the docstrings of public classes
# From the lowest to the highest. A layer imports from lower ones only, and those of one row do not import each other.
LAYERS = (
    ('utils',),
    ('ops',),
    ('models',),
    ('checkpoints',),
    ('visualization',),
    ('datasets',),
    ('swap', 'engine'),
    ('apis',),
    ('evaluation', 'benchmark', 'deploy'),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in PACKAGE.rglob('*.py') if '.mim' not in path.relative_to(PACKAGE).parts)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> Iterator[Tuple[str, bool]]:
    """Modules of the package that a file imports, and whether it does so when it is imported itself."""
    tree = ast.parse(path.read_text(encoding='utf-8'))
    in_functions = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        names: List[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ''
            if node.level:
                package = module_of(path).split('.')
                package = package[: len(package) - node.level + (path.name == '__init__.py')]
                module = '.'.join([*package, *([module] if module else [])])
            # A name may be a module of its own, or come from the module.
            inner = [f'{module}.{alias.name}' for alias in node.names]
            names = [name if name in MODULES else module for name in inner]
        for name in dict.fromkeys(names):
            if name.split('.')[0] == 'mmpanet':
                yield name, id(node) not in in_functions


def subpackage(module: str) -> str:
    parts = module.split('.')
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ''


def test_all_subpackages_have_a_layer():
    folders = {path.name for path in PACKAGE.iterdir() if (path / '__init__.py').is_file()}
    assert folders == set(LEVEL)


def test_root_holds_nothing_but_the_package_and_its_version():
    assert {path.name for path in PACKAGE.glob('*.py')} == {'__init__.py', 'version.py'}


def test_imports_go_down():
    """Also those in functions. Only a function may import the package itself, which is above all layers."""
    upward = []
    for path in FILES:
        here = subpackage(module_of(path))
        for module, at_once in imports_of(path):
            there = subpackage(module)
            goes_up = here and there and there != here and LEVEL[there] >= LEVEL[here]
            if goes_up or here and module == 'mmpanet' and at_once:
                upward.append(f'{name_of(path)} imports {module}')
    assert not upward


def test_no_circle_among_modules():
    """Of what is imported when a module is. That of a package imports it before the module."""
    graph: Dict[str, Set[str]] = {}
    for module, path in MODULES.items():
        graph[module] = {name for name, at_once in imports_of(path) if at_once and name in MODULES and name != module}
        # `from . import a` in a package's __init__ imports the module, which may itself be below the package.
        graph[module] = {name for name in graph[module] if not module.startswith(f'{name}.')}
    done: Set[str] = set()

    def visit(module: str, above: Tuple[str, ...]) -> None:
        assert module not in above, ' imports '.join([*above[above.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*above, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def lines_of_class_docstrings(path: Path) -> int:
    """Lines of the docstrings of public classes, which are as long as their arguments are many."""
    lines = 0
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_') and ast.get_docstring(node):
            docstring = node.body[0]
            lines += docstring.end_lineno - docstring.lineno + 1
    return lines


def test_size():
    large = {}
    for path in FILES:
        lines = len(path.read_text(encoding='utf-8').splitlines()) - lines_of_class_docstrings(path)
        if lines > LARGEST_FILE:
            large[name_of(path)] = lines
    assert not large


def test_header():
    texts = {path: path.read_text(encoding='utf-8') for path in [*FILES, *(ROOT / 'tests').rglob('*.py')]}
    assert not [name_of(path) for path, text in texts.items() if text and not text.startswith(f'{HEADER}\n')]


@pytest.mark.parametrize('folder', ['mmpanet', 'tools', 'tests', 'configs', '.dev_scripts'])
def test_no_switch_of_a_formatter_that_is_not_used(folder):
    switch = 'yapf: ' + 'disable'
    with_switch = [
        name_of(path)
        for path in (ROOT / folder).rglob('*.py')
        if '.mim' not in path.parts and switch in path.read_text(encoding='utf-8')
    ]
    assert not with_switch


def test_the_checks_find_what_they_look_for(tmp_path, monkeypatch):
    """An import that goes up, one of a module by ``from``, one that is relative, and one in a function."""
    package = tmp_path / 'mmpanet'
    (package / 'ops').mkdir(parents=True)
    for name in ('__init__.py', 'ops/__init__.py', 'ops/a.py'):
        (package / name).write_text('')
    source = package / 'ops' / 'b.py'
    source.write_text(
        'import os\nfrom mmpanet.models import PANetNeck\nfrom mmpanet.ops import a\nfrom . import a as one\n'
        'from .a import function\ndef later():\n    import mmpanet.swap\n'
    )
    modules = {'mmpanet.ops.a': package / 'ops/a.py', 'mmpanet.ops.b': source}
    monkeypatch.setitem(globals(), 'ROOT', tmp_path)
    monkeypatch.setitem(globals(), 'MODULES', modules)
    assert sorted(imports_of(source)) == [
        ('mmpanet.models', True),
        ('mmpanet.ops.a', True),
        ('mmpanet.ops.a', True),
        ('mmpanet.ops.a', True),
        ('mmpanet.swap', False),
    ]
