# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""mmengine's log, for a while without its lines."""

import logging
from contextlib import contextmanager
from typing import Iterator

from mmengine.logging import MMLogger


@contextmanager
def quiet_logger() -> Iterator[None]:
    """Keep mmengine's current logger to warnings, for example where it tells how every weight was initialized."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
