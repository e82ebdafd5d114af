# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""pytest on the installed mmpanet, not on the checkout that it is started in."""

import importlib.util
import sys
import sysconfig
from pathlib import Path

if __name__ == '__main__':  # processes that tests start import this file again
    origin = importlib.util.find_spec('mmpanet').origin  # not imported: tests/conftest.py sets up OpenMP before that
    if Path(sysconfig.get_path('purelib')) not in Path(origin).parents:
        sys.exit(f'pytest_installed.py: mmpanet would be imported from {origin}, which is not an installed wheel')

    import pytest

    sys.exit(pytest.main(sys.argv[1:]))
