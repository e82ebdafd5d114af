# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a case of bad input is, and how one is run.

A case prepares its input in an empty folder and returns what has to fail. Its error must match regular expressions for
the key or file, for what it holds and for what it takes; nothing may be written by the failure but a run's own log.
"""

import contextlib
import hashlib
import io
import os
import re
import runpy
import sys
import warnings
from pathlib import Path
from typing import Callable, Dict, NamedTuple, Tuple, Type, Union
from unittest import mock

from repository import ROOT, tool_path

LOGS = 'work'  # the folder that cases give to runs as their work folder

Action = Callable[[], object]


class Case(NamedTuple):
    """One bad input.

    Attributes:
        part (str): The part of the package that meets it.
        what (str): What is wrong, in words; no two cases say the same.
        prepare (Callable): Makes the input in a folder; what it returns has to fail.
        error (type | int): The exception, or the exit code of a command line.
        words (tuple[str]): Regular expressions that all match the message.
        whose (str): Whose words the message is in.
    """

    part: str
    what: str
    prepare: Callable[[Path], Action]
    error: Union[Type[BaseException], int]
    words: Tuple[str, ...]
    whose: str = 'mmpanet'


class Failure(NamedTuple):
    """How a case failed.

    Attributes:
        error (type | int): As in :class:`Case`.
        message (str): What the user reads, without the paths of this machine.
        written (list[str]): Files that are new or changed.
    """

    error: Union[Type[BaseException], int]
    message: str
    written: Tuple[str, ...]


def tool(name: str, *words) -> Action:
    """A command line of ``tools/``, in this process."""

    def run():
        arguments = [f'{Path(name).name}.py', *map(str, words)]
        with mock.patch.object(sys, 'argv', arguments), mock.patch.object(sys, 'path', list(sys.path)):
            runpy.run_path(str(tool_path(Path(name).name)), run_name='__main__')

    return run


def failure_of(case: Case, folder: Path) -> Failure:
    """Run a case in an empty folder."""
    stderr = io.StringIO()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings(), mock.patch.dict(os.environ), contextlib.redirect_stdout(
            io.StringIO()
        ), contextlib.redirect_stderr(stderr):
            warnings.simplefilter('ignore')
            act = case.prepare(folder)
            before = _state(folder)
            try:
                act()
            except SystemExit as end:
                if isinstance(end.code, str):
                    error, message = 1, end.code
                else:
                    error, message = end.code, stderr.getvalue()
            except Exception as exception:
                error, message = type(exception), str(exception)
            else:
                raise AssertionError(f'nothing failed: {case.what}')
    finally:
        os.chdir(here)
    after = _state(folder)
    written = tuple(sorted(path for path in after if after[path] != before.get(path)))
    return Failure(error, _without_paths(message, folder), written)


def _state(folder: Path) -> Dict[str, str]:
    """Digest of every file but the logs of a run."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file() and (LOGS not in path.relative_to(folder).parts[:1] or path.suffix == '.pth')
    }


def _without_paths(message: str, folder: Path) -> str:
    for place in (folder, folder.resolve(), ROOT):
        message = message.replace(f'{place}{os.sep}', '').replace(str(place), '.')
    # A file that is written whole has a name of its own until it is.
    return re.sub(r'usage:.*?(?=^\S+\.py: error)', '', message, flags=re.DOTALL | re.MULTILINE).strip()
