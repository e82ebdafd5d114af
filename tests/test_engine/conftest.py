# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import pytest
from tiny_training import NOTHING_AT_RANDOM, write_config


@pytest.fixture
def config(tmp_path):
    """The file of a tiny training in which nothing is drawn at random."""
    return write_config(tmp_path / 'tiny.py', '', NOTHING_AT_RANDOM)
