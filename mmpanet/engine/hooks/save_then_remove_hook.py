# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A checkpoint hook that removes outdated checkpoints only after it has saved the new one."""

from mmengine.hooks import CheckpointHook


class SaveThenRemoveHook(CheckpointHook):
    """mmengine's checkpoint hook, which removes outdated checkpoints after it has saved the new one."""

    def _save_checkpoint_with_step(self, runner, step, meta):
        with _DeferredRemovals(self):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics):
        with _DeferredRemovals(self):
            super()._save_best_checkpoint(runner, metrics)


class _DeferredRemovals:
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
