# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""PANet (Path Aggregation Network for Instance Segmentation, CVPR 2018) for MMDetection 3.x.

``import mmpanet`` registers PANet's parts in mmdet's registry. It lets mmengine read checkpoints as data, without
running code of the file (:mod:`mmpanet.checkpoints.loader`), and lets torch's safe loader read mmengine's own
checkpoints (:mod:`mmpanet.checkpoints.safe_globals`). It changes nothing else.
"""

from .utils.requirements import check_requirements
from .version import __version__

check_requirements()

from . import models  # noqa: E402
from .checkpoints.loader import register_loaders  # noqa: E402
from .checkpoints.safe_globals import allow_mmengine_checkpoints  # noqa: E402
from .engine import hooks  # noqa: E402

allow_mmengine_checkpoints()
register_loaders()

__all__ = ['__version__', 'hooks', 'models']
