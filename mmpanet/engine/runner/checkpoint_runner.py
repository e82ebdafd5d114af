# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A training that is killed, or runs out of disk space, leaves a whole checkpoint to go on from.

mmengine 0.10.7 removes the oldest checkpoint before it writes the new one, and writes the new one in place. A training
with ``max_keep_ckpts=1`` that is killed meanwhile has no checkpoint left. ``--resume`` fails on a file that is cut off
and on an empty ``last_checkpoint``, even if whole checkpoints lie beside it. Here a checkpoint is written under another
name and renamed once it is whole. What it replaces is removed after that. :func:`last_whole_checkpoint` passes over
files that are cut off. If the training was killed between a checkpoint and its evaluation, that is done first.
"""

import errno
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Optional

import torch
from mmengine.dist import all_gather_object, broadcast_object_list
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmpanet.checkpoints.matching import STATISTICS
from mmpanet.checkpoints.whole_files import last_whole_checkpoint, remove_unfinished
from mmpanet.engine.hooks.evaluate_missed_hook import EvaluateMissedHook
from mmpanet.engine.hooks.save_then_remove_hook import SaveThenRemoveHook
from mmpanet.utils.errors import CheckpointError, ConfigError
from mmpanet.utils.files import atomic_write


class WholeCheckpointRunner(Runner):
    """mmengine's runner, which never lacks a whole checkpoint once there was one.

    It also refuses to save weights that are not finite, because they would push a good checkpoint out.
    """

    def train(self) -> nn.Module:
        if self.rank == 0:
            remove_unfinished(self.work_dir)
        try:
            return super().train()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise CheckpointError(
                f'{error.filename or self.work_dir}: {error.strerror}. The checkpoints that were there still are; '
                '--resume goes on from the last one'
            ) from error

    def load_or_resume(self) -> None:
        if self._resume and self._load_from is None and not self._has_loaded:
            resume_last(self)
        super().load_or_resume()

    def register_default_hooks(self, hooks: Optional[Dict[str, Any]] = None) -> None:
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        kind = checkpoint.get('type') if isinstance(checkpoint, dict) else None
        if (HOOKS.get(kind) if isinstance(kind, str) else kind) is CheckpointHook:
            hooks['checkpoint'] = {**checkpoint, 'type': SaveThenRemoveHook}
            name = checkpoint.get('filename_tmpl') or ''
            if Path(name).name != name:
                raise ConfigError(
                    f'default_hooks.checkpoint.filename_tmpl={name!r} has a folder; it takes a name, and out_dir names '
                    'the folder'
                )
        super().register_default_hooks(hooks)
        self.register_hook(EvaluateMissedHook())

    def save_checkpoint(self, out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
        """As mmengine's; a file in a local folder appears in one step."""
        _check_finite(self.model, filename)
        if '://' in str(out_dir) or self.rank != 0:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        Path(out_dir).mkdir(parents=True, exist_ok=True)
        with atomic_write(Path(out_dir, filename)) as part:
            super().save_checkpoint(str(part.parent), part.name, *args, **kwargs)


def resume_last(runner: Runner) -> None:
    """Let a runner go on from the last whole checkpoint in its work folder.

    Without one it starts as its config says. The weights of ``load_from`` are where a training starts, not where it
    goes on; mmengine would resume from them.

    Raises:
        CheckpointError: If processes of a distributed run lack the file.
    """
    found = [last_whole_checkpoint(runner.work_dir)]
    broadcast_object_list(found)  # one process decides for all
    last = found[0]
    if last is not None and '://' not in last and not all(all_gather_object(Path(last).is_file())):
        raise CheckpointError(
            f'{last}: is there for some processes only. Machines that do not share their work folders cannot resume, '
            'unless each of them has a copy under this path'
        )
    if last is None:
        start = f'from {runner._load_from}' if runner._load_from else 'anew'
        runner.logger.warning(f'{runner.work_dir} has no whole checkpoint to resume from; training starts {start}')
    else:
        runner._load_from = last
    runner._resume = last is not None


def _check_finite(model: nn.Module, filename: str) -> None:
    model = model.module if is_model_wrapper(model) else model
    # A step in half precision that overflows may change the statistics, though the optimizer leaves it out.
    statistics = ((name, buffer) for name, buffer in model.named_buffers() if name.endswith(STATISTICS))
    for name, values in chain(model.named_parameters(), statistics):
        if not torch.isfinite(values).all():
            raise CheckpointError(
                f'{filename} is not saved: the weights have become NaN or infinite, first {name}. Resume from an '
                'earlier checkpoint with a lower learning rate, a longer warm-up or optim_wrapper.clip_grad'
            )
