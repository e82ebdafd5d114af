# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Config files that cannot be read: each is named in one line."""

import pytest
from mmengine.config import Config

from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import ConfigError

TEXTS = [
    ('a = undefined', "NameError: name 'undefined' is not defined"),
    ("a = dict(x=1)['y']", "KeyError: 'y'"),
    ("a = open('gone.txt')", 'gone.txt'),
    ("_base_ = './gone.py'", 'gone.py'),
    ('a = dict(x=1', 'syntax error'),
    ("raise ValueError('two\\nlines')", 'ValueError: two lines'),
    ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
    ('default_scope = 5', "default_scope=5, it takes the name of a scope, such as 'mmdet'"),
    ("default_scope = ['mmdet']", "default_scope=['mmdet'], it takes"),
]


@pytest.mark.parametrize('text, message', TEXTS)
def test_configs_that_cannot_be_read(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.py').write_text(text + '\n')
    with pytest.raises(ConfigError) as error:
        load_config('bad.py')
    assert str(error.value).startswith('config bad.py: ') and message in str(error.value)
    assert '\n' not in str(error.value)
    if 'default_scope' not in text:
        with pytest.raises(Exception):  # noqa: B017  mmengine raises what the code raises
            Config.fromfile('bad.py')


def test_settings_are_merged(tmp_path):
    (tmp_path / 'good.py').write_text('a = dict(b=1)\ndefault_scope = None\n')
    assert load_config(tmp_path / 'good.py', {'a.b': 2}).a.b == 2
