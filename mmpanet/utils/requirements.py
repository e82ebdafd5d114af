# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Check at ``import mmpanet`` that the MMDetection stack is complete, so that nothing fails in an obscure way later."""

import importlib
import importlib.util
import warnings
from typing import NamedTuple

from mmpanet.version import __version__

INSTALL_MMCV = 'run tools/install/install_mmcv.py (`mim run mmpanet install_mmcv`), see docs/install.md'
INSTALL_STACK = 'pip install "mmpanet[openmmlab]", or "mmpanet[onedl]" for the forks'


class Requirement(NamedTuple):
    """The versions of a module that mmpanet was tested with."""

    minimum: str  # the oldest version that works
    untested_from: str  # the first version that is newer than all tested ones
    remedy: str  # how to install a version that works


# By the name of the module; docs/install.md lists which versions were tested together. OpenMMLab's packages have
# the same module names as the forks of them (onedl-mmengine, onedl-mmcv and onedl-mmdetection), and the forks have the
# higher versions. mmdet itself checks whether it goes with the installed mmcv.
REQUIREMENTS = {
    'torch': Requirement('2.0.1', '2.15', 'pip install torch'),
    'mmengine': Requirement('0.10.0', '0.11.0', INSTALL_STACK),
    'mmcv': Requirement('2.0.1', '2.4.0', INSTALL_MMCV),
    'mmdet': Requirement('3.1.0', '3.6.0', INSTALL_STACK),
}


def check_requirements() -> None:
    """Check the modules of ``REQUIREMENTS``.

    Raises:
        ImportError: If a module is missing, is too old, or cannot load its compiled operators.

    Warns:
        UserWarning: If a module is newer than all versions that were tested.
    """
    for module, (minimum, _, remedy) in REQUIREMENTS.items():
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:  # a folder without the module, such as the rest of an uninstalled one
            raise ImportError(f'mmpanet needs {module}>={minimum}, which is not installed: {remedy}')

    from mmengine.utils import digit_version

    for module, (minimum, untested_from, remedy) in REQUIREMENTS.items():
        version = importlib.import_module(module).__version__
        if digit_version(version) < digit_version(minimum):
            raise ImportError(f'mmpanet needs {module}>={minimum}, and {version} is installed: {remedy}')
        if digit_version(version) >= digit_version(untested_from):
            warnings.warn(
                f'mmpanet {__version__} was not tested with {module} {version}, only with versions below '
                f'{untested_from}; it may work, or fail in odd ways',
                stacklevel=3,
            )

    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        raise ImportError(
            f'mmpanet needs mmcv with its compiled operators, and they do not load here ({error}): {INSTALL_MMCV}'
        ) from error
