# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What ``import mmpanet`` needs, checked before anything else fails in a less obvious place."""

import importlib
import importlib.util
import warnings

from mmpanet.version import __version__

INSTALL_MMCV = 'run tools/install/install_mmcv.py (`mim run mmpanet install_mmcv`), see docs/install.md'
# Module: the oldest version that was run, the first one beyond those that were run, and what to do (docs/install.md).
# The newest mmcv and mmdet are those of the onedl forks; mmdet itself checks which mmcv it goes with.
REQUIREMENTS = {
    'torch': ('2.0.1', '2.15', 'pip install torch'),
    'mmengine': ('0.10.0', '1.0.0', 'pip install "mmpanet[openmmlab]", or "mmpanet[onedl]" for the forks'),
    'mmcv': ('2.0.1', '2.4.0', INSTALL_MMCV),
    'mmdet': ('3.1.0', '3.6.0', 'pip install "mmpanet[openmmlab]", or "mmpanet[onedl]" for the forks'),
}


def check_requirements():
    """Raise ImportError for what is missing, broken or too old; warn of what is newer than anything tried."""
    for module, (minimum, _, remedy) in REQUIREMENTS.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'mmpanet needs {module}>={minimum}, which is not installed: {remedy}')

    from mmengine.utils import digit_version

    for module, (minimum, beyond, remedy) in REQUIREMENTS.items():
        version = importlib.import_module(module).__version__
        if digit_version(version) < digit_version(minimum):
            raise ImportError(f'mmpanet needs {module}>={minimum}, and {version} is installed: {remedy}')
        if digit_version(version) >= digit_version(beyond):
            warnings.warn(
                f'mmpanet {__version__} was not tried with {module} {version}, only with versions below '
                f'{beyond}; it may work, or fail in odd ways',
                stacklevel=3,
            )

    try:
        importlib.import_module('mmcv.ops')
    except ImportError as error:
        raise ImportError(
            f'mmpanet needs mmcv with its compiled operators, and they do not load here ({error}): {INSTALL_MMCV}'
        ) from error
