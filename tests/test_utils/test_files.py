# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Reports are written whole or not at all."""

import json
import os

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


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'report.md'
    write_text(path, 'old')
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as part:
        part.write_text('half')
        raise KeyboardInterrupt
    assert path.read_text() == 'old'
    assert [file.name for file in tmp_path.iterdir()] == ['report.md']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_a_folder_that_cannot_take_its_place_leaves_the_old_one(tmp_path, monkeypatch, error):
    old = tmp_path / 'data'
    old.mkdir()
    (old / 'kept').touch()
    rename = os.rename

    def fail_once(source, target):
        if str(target) == str(old) and 'old' not in os.path.basename(source):
            raise error
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fail_once)
    with pytest.raises(error), atomic_folder(old) as folder:
        (folder / 'new').touch()
    assert [file.name for file in tmp_path.iterdir()] == ['data']
    assert [file.name for file in old.iterdir()] == ['kept']
