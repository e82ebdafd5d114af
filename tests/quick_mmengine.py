# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmengine without the work that takes most of a small training and that no test of a training is about."""

import gc
from functools import lru_cache

from mmengine.config import config, utils
from mmengine.runner import runner
from yapf.yapflib import yapf_api

FORMATTER = config if hasattr(config, 'FormatCode') else yapf_api  # onedl's mmengine imports it at each call
FORMAT_CODE = FORMATTER.FormatCode


def make_quick():
    """Take out what mmengine repeats, in this process.

    - A run writes its config as text into its folder, its log and every checkpoint, and has yapf format it each time.
      The text stays unformatted.
    - A config with a base of mmdet's looks for mmdet and reads all of its metafiles. Both are done once.
    - A run asks compilers for their versions. They are asked once.
    """
    FORMATTER.FormatCode = lambda text, **kwargs: (text, True)
    config.is_installed = lru_cache(maxsize=None)(config.is_installed)
    utils.load = lru_cache(maxsize=None)(utils.load)
    runner.collect_env = lru_cache(maxsize=None)(runner.collect_env)


def leave_out_of_collections():
    """Datasets collect garbage, among everything that was ever imported: leave out what is there by now."""
    gc.collect()
    gc.freeze()
