# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Distributed runs on CPUs, which mmengine starts only on accelerators.

mmengine 0.10.7 selects a CUDA device whatever the backend, and hands device ids to DistributedDataParallel, which
refuses them for a model on the CPU. On a machine without an accelerator the processes that torchrun (or
``torch.distributed.launch``) has started form a gloo group here.
"""

import atexit
import os
from datetime import timedelta
from typing import Any, Dict, Optional

import torch.distributed
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.model import is_model_wrapper
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import nn
from torch.nn import SyncBatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmpanet.utils.errors import ConfigError


class CpuGroupRunner(Runner):
    """mmengine's runner, which can be distributed without an accelerator too."""

    def setup_env(self, env_cfg: Dict[str, Any]) -> None:
        if self.distributed and not is_distributed() and get_device() == 'cpu':
            if self.launcher != 'pytorch':
                raise ConfigError(
                    f'--launcher {self.launcher} needs GPUs, and there is none here; on CPUs use torchrun and '
                    '--launcher pytorch'
                )
            if 'RANK' not in os.environ:
                raise ConfigError('--launcher pytorch needs torchrun to start the processes: see tools/dist_train.sh')
            timeout = (env_cfg.get('dist_cfg') or {}).get('timeout')
            options = dict(timeout=timedelta(seconds=timeout)) if timeout else {}
            torch.distributed.init_process_group('gloo', **options)
            # A group that is left open has threads, and now and then they end a process by SIGABRT when it exits.
            atexit.register(_close_group)
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: Optional[Dict[str, Any]], model: nn.Module) -> nn.Module:
        if not self.distributed or get_device() != 'cpu' or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        _refuse_sync_bn(model)
        wrapper: Dict[str, Any] = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
        )
        wrapper.update(model_wrapper_cfg or {})
        if issubclass(MODEL_WRAPPERS.get(wrapper['type']), DistributedDataParallel):
            wrapper['device_ids'] = None
        return super().wrap_model(wrapper, model)


def _close_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _refuse_sync_bn(model: nn.Module) -> None:
    """torch refuses it as well, but does not name the layer or the way out."""
    name = next((name for name, module in model.named_modules() if isinstance(module, SyncBatchNorm)), None)
    if name is not None:
        raise ConfigError(
            f"norm_cfg.type='SyncBN' ({name}) needs GPUs in a distributed run. On CPUs use dict(type='GN', "
            'num_groups=32), or one process, in which SyncBN becomes BN'
        )
