# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Inputs that are spoiled at random: what the fuzz of annotation files, masks and configs shares.

Each test runs with few fixed inputs, and behind the marker ``slow`` with many random ones: ``FUZZ_EXAMPLES`` of them.
"""

import contextlib
import copy
import io
import os
import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

COMMON = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
QUICK = settings(max_examples=25, derandomize=True, **COMMON)
LONG = settings(max_examples=int(os.environ.get('FUZZ_EXAMPLES', 2000)), print_blob=True, **COMMON)
PROFILES = [pytest.param(QUICK, id='quick'), pytest.param(LONG, id='long', marks=pytest.mark.slow)]

WILD = st.one_of(
    st.sampled_from(
        [None, True, False, 0, 1, 2, 3, 7, -1, 0.0, 1.0, 2.0, 0.5, -0.5, 1e20, 1e300, float('nan'), float('inf'), 2**40]
    ),
    st.sampled_from(['', '0', '1', ' 1', '1.0', 'bolt', 'nut', 'x' * 500, '\udc80', '\0', '\n', '/', '..', 'images']),
    st.sampled_from([[], {}, [[]], [None], [0, 0, 0, 0], [1, 2, 3], {'counts': 'PP', 'size': [48, 64]}, [[1, 2] * 3]]),
    st.integers(-100, 100),
    st.floats(width=32),
)


def places(node, path=()):
    """All places in a JSON value."""
    found = [path] if path else []
    if isinstance(node, dict):
        for key in node:
            found += places(node[key], (*path, key))
    elif isinstance(node, list):
        for i, item in enumerate(node[:80]):
            found += places(item, (*path, i))
    return found


@st.composite
def spoiled(draw, good, most=3):
    """A copy of a JSON value with a few changes."""
    data = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, most))):
        everywhere = places(data)
        if not everywhere:
            break
        *parents, last = draw(st.sampled_from(everywhere))
        node = data
        for key in parents:
            node = node[key]
        change = draw(st.sampled_from(['set', 'set', 'delete', 'double', 'rename', 'text', 'float']))
        if change == 'set':
            node[last] = copy.deepcopy(draw(WILD))
        elif change == 'delete':
            del node[last]
        elif change == 'double' and isinstance(node, list):
            node.append(copy.deepcopy(node[last]))
        elif change == 'rename' and isinstance(node, dict):
            node[str(last).upper()] = node.pop(last)
        elif change == 'text' and not isinstance(node[last], (dict, list)):
            node[last] = str(node[last])
        elif change == 'float' and isinstance(node[last], int):
            node[last] = float(node[last])
    return data


@contextlib.contextmanager
def quiet_folder():
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield Path(folder)


def byte_edits(most=3):
    """Changes of a file's content: the place, new bytes, and how many old ones they replace."""
    edit = st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4))
    return st.lists(edit, min_size=1, max_size=most)


def edit_bytes(content, edits):
    for place, new, removed in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + removed :]
    return content
