# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Keep mmengine's log quiet for a while."""

import logging
from contextlib import contextmanager
from typing import Iterator

from mmengine.logging import MMLogger


@contextmanager
def quiet_logger() -> Iterator[None]:
    """Restrict mmengine's current logger to warnings, for example while it reports how each weight is initialized."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
