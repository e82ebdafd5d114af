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
import re
import sys
import zipfile
from pathlib import Path

import torch
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

PART = '.part'


class CheckpointKeepingRunner(Runner):
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
            fault = fault_of_checkpoint(filename) if Path(filename).is_file() else ''
            if not fault:
                raise
            sys.exit(f'checkpoint {filename}: {fault}')

    def register_default_hooks(self, hooks=None):
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))
        if isinstance(checkpoint, dict) and checkpoint.get('type') in ('CheckpointHook', CheckpointHook):
            hooks['checkpoint'] = {**checkpoint, 'type': RemoveAfterSavingHook}
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


class RemoveAfterSavingHook(CheckpointHook):
    """mmengine's checkpoint hook, which removes outdated checkpoints after it has saved the new one."""

    def _save_checkpoint_with_step(self, runner, step, meta):
        with _Removals(self):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics):
        with _Removals(self):
            super()._save_best_checkpoint(runner, metrics)


class _Removals:
    """Stands for a hook's file backend and keeps its removals until the end; if that is an error, they are dropped."""

    def __init__(self, hook):
        self.hook, self.backend, self.removals = hook, hook.file_backend, []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def remove(self, path):
        self.removals.append((self.backend.remove, path))

    def rmtree(self, path):
        self.removals.append((self.backend.rmtree, path))

    def __enter__(self):
        self.hook.file_backend = self

    def __exit__(self, error, *_):
        self.hook.file_backend = self.backend
        if error is None:
            for remove, path in self.removals:
                remove(path)


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


def last_whole_checkpoint(work_dir):
    """The checkpoint in a work folder to resume from, as a string, or None if there is none.

    That is the one that mmengine's ``last_checkpoint`` names, or if it is not whole the latest (``epoch_*.pth``,
    ``iter_*.pth``) that is. A work folder may have been moved since.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named:
        return named
    numbered = [path for path in Path(work_dir).glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', path.name)]
    numbered.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    candidates = ([Path(named), Path(work_dir, Path(named).name)] if named else []) + numbered
    for path in candidates:
        fault = fault_of_checkpoint(path)
        if not fault:
            if named and path.name != Path(named).name:
                print_log(f'{named} is not whole; going on from {path}', 'current')
            return str(path)
    return None


def fault_of_checkpoint(path):
    """Why a checkpoint file cannot be whole, or an empty string; nothing in it is unpickled.

    Since torch 1.6 it is a zip file, with its list of contents at the end and a checksum for each of them.
    """
    path = Path(path)
    if not path.is_file():
        return 'no such file'
    if path.stat().st_size == 0:
        return 'the file is empty'
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f'cut off, or no checkpoint of torch 1.6 or newer ({error})'
    return f'damaged: {damaged} in it has another checksum' if damaged else ''


def misfit(model, state_dict, all_of_them=True):
    """Why a state dict is not the model's, or an empty string.

    It must have all parameters, or, without ``all_of_them``, at least one.
    """
    shapes = {
        name.replace('module.', '', 1) if name.startswith('module.') else name: tuple(value.shape)
        for name, value in state_dict.items()
        if hasattr(value, 'shape')
    }
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    lacking = [name for name, shape in wanted.items() if shapes.get(name) != shape]
    if not lacking or not all_of_them and len(lacking) < len(wanted):
        return ''
    name = lacking[0]
    held = f'{name} is {shapes[name]} in it' if name in shapes else f'it has no {name}'
    return (
        f"of another model: {len(lacking)} of the {len(wanted)} parameters of the config's model are not in it; "
        f'{held}, and the model takes {wanted[name]}'
    )


def _check_finite(model, filename):
    model = model.module if is_model_wrapper(model) else model
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise FloatingPointError(
                f'{filename} is not saved: the weights have become NaN or infinite, first {name}. Resume from an '
                'earlier checkpoint with a lower learning rate, a longer warm-up or optim_wrapper.clip_grad'
            )
