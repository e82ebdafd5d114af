# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Put PANet into a model that has an FPN, by rewriting its config and its checkpoint. See docs/swap.md.

``import mmpanet`` does not import this package.
"""

from mmpanet.utils.configs import load_config
from .checkpoint import swap_checkpoint
from .config import swap_config
from .types import SwapError
from .verification import verify
from .written_config import write_config

__all__ = ['SwapError', 'load_config', 'swap_checkpoint', 'swap_config', 'verify', 'write_config']
