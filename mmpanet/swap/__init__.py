# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""PANet in a model that has an FPN: its config and its checkpoint rewritten. See docs/swap.md.

``import mmpanet`` does not import this package.
"""

from mmpanet.utils.configs import load_config
from .config import SwapError, swap_config
from .verification import verify
from .weights import swap_checkpoint
from .written_config import write_config

__all__ = ['SwapError', 'load_config', 'swap_checkpoint', 'swap_config', 'verify', 'write_config']
