# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What :func:`tiny_training.fresh_processes` imports before all else that its processes need."""

import quick_mmengine
import tiny_training  # noqa: F401

quick_mmengine.make_quick()
