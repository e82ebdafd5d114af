# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the process behind :func:`tiny_training.fresh_processes` imports: all that a training imports on its way."""

import pkg_resources  # noqa: F401
import quick_mmengine
import tiny_training
import torch._dynamo  # noqa: F401
from mmengine.config import Config

import mmdet.apis  # noqa: F401
import mmdet.engine  # noqa: F401
import mmdet.visualization  # noqa: F401
import mmpanet.engine.run_arguments  # noqa: F401
import mmpanet.engine.runner.checking_runner  # noqa: F401

quick_mmengine.make_quick()
Config.fromfile(tiny_training.BASE)  # mmdet's metafiles are read now
quick_mmengine.leave_out_of_collections()
