# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reports are written whole or not at all."""

import json
import os
from pathlib import Path

import pytest

from mmpanet.utils.files import atomic_folder, atomic_write, write_json, write_text


@pytest.mark.parametrize('indent, lines', [(2, 3), (None, 1)])
def test_json_comes_back(tmp_path, indent, lines):
    path = tmp_path / 'report.json'
    write_json(path, {'AP': 0.5}, indent)
    assert json.loads(path.read_text()) == {'AP': 0.5}
    assert path.read_text().count('\n') == lines


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / 'report.json'
    write_json(path, 'old')
    with pytest.raises(TypeError):
        write_json(path, [1, object()])
    assert [file.name for file in tmp_path.iterdir()] == ['report.json']
    assert json.loads(path.read_text()) == 'old'


def test_text_that_cannot_be_encoded_leaves_the_old_file(tmp_path):
    path = tmp_path / 'report.md'
    write_text(path, 'β and 中')
    with pytest.raises(UnicodeEncodeError):
        write_text(path, 'half of a pair: \ud800')
    assert [file.name for file in tmp_path.iterdir()] == ['report.md']
    assert path.read_text(encoding='utf-8') == 'β and 中'


@pytest.mark.parametrize('name', ['n' * 251 + '.txt', '名' * 80 + '.txt'])
def test_names_as_long_as_the_system_takes(tmp_path, name):
    write_text(tmp_path / name, 'text')
    with atomic_folder(tmp_path / 'folder' / name) as folder:
        (folder / 'a').write_text('text')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(['folder', name])


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'report.md'
    write_text(path, 'old')
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as part:
        part.write_text('half')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert [file.name for file in tmp_path.iterdir()] == ['report.md']


@pytest.mark.parametrize(
    'call, when, error, left',
    [
        (0, 'before', OSError, 'old'),
        (1, 'before', OSError, 'old'),
        (0, 'before', KeyboardInterrupt, 'old'),
        (0, 'behind', KeyboardInterrupt, 'old'),
        (1, 'before', KeyboardInterrupt, 'old'),
        (1, 'behind', KeyboardInterrupt, 'new'),
    ],
)
def test_a_folder_is_never_lost(tmp_path, monkeypatch, call, when, error, left):
    """The first call moves the old folder aside, the second moves the new one to its place."""
    target = tmp_path / 'data'
    target.mkdir()
    (target / 'old').touch()
    calls, rename = [], os.rename

    def interrupted(source, to):
        calls.append(source)
        stops = len(calls) - 1 == call
        if stops and when == 'before':
            raise error
        rename(source, to)
        if stops:
            raise error

    monkeypatch.setattr(os, 'rename', interrupted)
    with pytest.raises(error), atomic_folder(target) as folder:
        (folder / 'new').touch()
    assert [file.name for file in tmp_path.iterdir()] == ['data']
    assert [file.name for file in target.iterdir()] == [left]


def test_links_are_followed_and_pipes_are_written_to(tmp_path):
    (tmp_path / 'there').mkdir()
    target, link = tmp_path / 'there/report.md', tmp_path / 'link.md'
    link.symlink_to(target)
    for text in ('first', 'second'):
        write_text(link, text)
        assert link.is_symlink() and target.read_text() == text
    write_text(os.devnull, 'nothing')
    assert Path(os.devnull).is_char_device()
