# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A training that is killed, or runs out of disk, leaves a whole checkpoint to go on from.

mmengine 0.10.7 removes the oldest checkpoint before it writes the new one, and writes that in place. Whoever keeps one
(``max_keep_ckpts=1``) and is killed meanwhile has nothing left, and ``--resume`` fails on a file cut off, or on an
empty ``last_checkpoint``, whatever lies beside it. Here a checkpoint is written under another name and renamed once
it is whole; what it replaces is removed after that; and :func:`last_whole_checkpoint` passes over what is cut off.
"""

import errno
import os
import pickle
import sys
from pathlib import Path

import torch
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmpanet.checkpoints.whole_files import checkpoint_fault, last_whole_checkpoint
from mmpanet.engine.hooks.save_then_remove_hook import SaveThenRemoveHook

PART = '.part'


class WholeCheckpointRunner(Runner):
    """mmengine's runner, which never lacks a whole checkpoint once there was one.

    It also refuses to save weights that are not finite: they would push a good checkpoint out.
    """

    def train(self):
        try:
            return super().train()
        except FloatingPointError as error:
            sys.exit(str(error))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            sys.exit(
                f'{error.filename or self.work_dir}: {error.strerror}. The checkpoints that were there still are; '
                '--resume goes on from the last one'
            )

    def load_or_resume(self):
        if self._resume and self._load_from is None and not self._has_loaded:
            resume_last(self)
        super().load_or_resume()

    def load_checkpoint(self, filename, *args, **kwargs):
        try:
            return super().load_checkpoint(filename, *args, **kwargs)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            fault = checkpoint_fault(filename) if Path(filename).is_file() else ''
            if not fault:
                raise
            sys.exit(f'checkpoint {filename}: {fault}')

    def register_default_hooks(self, hooks=None):
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') in ('CheckpointHook', CheckpointHook):
            hooks['checkpoint'] = {**checkpoint, 'type': SaveThenRemoveHook}
        super().register_default_hooks(hooks)

    def save_checkpoint(self, out_dir, filename, *args, **kwargs):
        """As mmengine's, in one step for whoever looks at the folder (a local one)."""
        _check_finite(self.model, filename)
        path = Path(out_dir, filename)
        if '://' in str(out_dir):
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        part = path.with_name(path.name + PART)
        try:
            super().save_checkpoint(out_dir, part.name, *args, **kwargs)
            if self.rank == 0:
                with open(part, 'rb+') as stream:
                    os.fsync(stream.fileno())  # else a power cut could find the new name on disk before the content
                os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def resume_last(runner):
    """Have a runner go on from the last whole checkpoint in its work folder; without one it starts as its config says.

    The weights of ``load_from`` are where a training starts, not where it goes on: mmengine would resume from them.
    """
    last = last_whole_checkpoint(runner.work_dir)
    if last is None:
        start = f'from {runner._load_from}' if runner._load_from else 'anew'
        runner.logger.warning(f'{runner.work_dir} has no whole checkpoint to resume from; training starts {start}')
    else:
        runner._load_from = last
    runner._resume = last is not None


def _check_finite(model, filename):
    model = model.module if is_model_wrapper(model) else model
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise FloatingPointError(
                f'{filename} is not saved: the weights have become NaN or infinite, first {name}. Resume from an '
                'earlier checkpoint with a lower learning rate, a longer warm-up or optim_wrapper.clip_grad'
            )
