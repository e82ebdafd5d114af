# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""pytest on the installed mmpanet, not on the checkout that it is started in."""

import sys
import sysconfig
from pathlib import Path

if __name__ == '__main__':  # processes that tests start import this file again
    import pytest

    import mmpanet

    if Path(sysconfig.get_path('purelib')) not in Path(mmpanet.__file__).parents:
        sys.exit(f'pytest_installed.py: mmpanet was imported from {mmpanet.__file__}, which is not an installed wheel')
    sys.exit(pytest.main(sys.argv[1:]))
