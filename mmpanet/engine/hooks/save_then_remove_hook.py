# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A checkpoint hook that removes outdated checkpoints of its own run, after it has saved the new one."""

from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmpanet.checkpoints.whole_files import remove_unfinished


class SaveThenRemoveHook(CheckpointHook):
    """mmengine's checkpoint hook with two differences about removing outdated checkpoints.

    It removes them after it has saved the new one, not before. And it removes only what its run wrote into its own
    folder: a training that resumes from the checkpoint of another folder leaves that folder alone, where mmengine
    0.10.7 removes the other run's best checkpoint. A run whose folder was moved finds its best checkpoint in the new
    place.
    """

    def before_train(self, runner: Runner) -> None:
        # mmengine would remove checkpoints here, whoever wrote them.
        kept = runner.message_hub.runtime_info.pop('keep_ckpt_ids', [])
        super().before_train(runner)
        if is_main_process() and '://' not in str(self.out_dir):
            remove_unfinished(self.out_dir)  # the runner does so in the work folder, where it may not lie
        goes_on = runner._resume and is_in(runner._load_from, self.out_dir)
        if self.max_keep_ckpts > 0 and goes_on:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
            with _Removals(self) as removals:
                outdated = kept[: -self.max_keep_ckpts] if is_main_process() else []
                for step in outdated:
                    removals.remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step)))
        best: Optional[str] = getattr(self, 'best_ckpt_path', None)
        if best:
            self.best_ckpt_path = self._own_best(best) if goes_on else None
        for indicator, path in getattr(self, 'best_ckpt_path_dict', {}).items():
            self.best_ckpt_path_dict[indicator] = self._own_best(path) if path and goes_on else None

    def _own_best(self, path: str) -> str:
        """The best checkpoint in this run's folder, which may have been moved since the path was written down."""
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: Dict[str, Any]) -> None:
        with _Removals(self):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: Dict[str, float]) -> None:
        with _Removals(self):
            super()._save_best_checkpoint(runner, metrics)


def is_in(checkpoint: Optional[str], folder: str) -> bool:
    """Whether a checkpoint lies in a folder, however both are written."""
    if checkpoint is None or '://' in str(checkpoint) or '://' in str(folder):
        return str(checkpoint).rpartition('/')[0] == str(folder).rstrip('/')
    return Path(checkpoint).resolve().parent == Path(folder).resolve()


class _Removals:
    """Takes the place of a hook's file backend and keeps its removals until the end. An error drops them.

    The hook may ask to remove the file that it then writes again, if all its checkpoints have one name. Such a file
    stays.
    """

    def __init__(self, hook: SaveThenRemoveHook) -> None:
        self.hook, self.backend = hook, hook.file_backend
        self.removals: List[Tuple[Callable[[str], None], str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self._remove_later(self.backend.remove, path)

    def rmtree(self, path: str) -> None:
        self._remove_later(self.backend.rmtree, path)

    def _remove_later(self, remove: Callable[[str], None], path: str) -> None:
        if is_in(path, self.hook.out_dir):
            self.removals.append((remove, path))

    def __enter__(self) -> '_Removals':
        self.hook.file_backend = self
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: Optional[TracebackType]) -> None:
        self.hook.file_backend = self.backend
        if kind is None:
            for remove, path in self.removals:
                if path not in self._in_use() and self.backend.exists(path):
                    remove(path)

    def _in_use(self) -> List[Optional[str]]:
        """The checkpoints that the hook names now: the last ones that it keeps, and the best one of each metric."""
        hook = self.hook
        best = getattr(hook, 'best_ckpt_path_dict', {}).values()
        kept = [
            hook.file_backend.join_path(hook.out_dir, hook.filename_tmpl.format(step))
            for step in getattr(hook, 'keep_ckpt_ids', ())
        ]
        return [getattr(hook, 'last_ckpt', None), getattr(hook, 'best_ckpt_path', None), *best, *kept]
