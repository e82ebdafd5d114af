# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from pathlib import Path
from typing import Any, Dict, Optional

from mmengine.dist import broadcast_object_list
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmpanet.utils.files import write_text
from .save_then_remove_hook import is_in

NOTE = 'last_evaluation'


class EvaluateMissedHook(Hook):
    """Evaluates a resumed model at once, if the training was killed between the checkpoint and its evaluation.

    mmengine saves a checkpoint before it evaluates the model, and a training that resumes from it goes on with the next
    epoch. The curve of AP would lack a point, and after the last epoch the AP of an earlier one would be taken for that
    of the last checkpoint. The hook notes in the work folder, in the file ``last_evaluation``, after how many epochs
    the model was evaluated last, or after how many iterations if the training counts these. A folder without this
    file, and a checkpoint from elsewhere, are left alone. The runner of ``tools/train.py`` has this hook.
    """

    # After all other hooks, the averaged weights of EMAHook among them.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.is_training = False

    def before_train(self, runner: Runner) -> None:
        self.is_training = True
        missed = [_has_missed_evaluation(runner)]
        broadcast_object_list(missed)  # the folder of another process may lack the file
        if missed[0]:
            runner.logger.info('the resumed checkpoint has not been evaluated yet: it is evaluated now')
            runner.val_loop.run()
            runner.model.train()
        else:
            _note(runner, min(_done(runner), _noted(runner)))

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, Any]] = None) -> None:
        if self.is_training:
            _note(runner, _done(runner))


def _done(runner: Runner) -> int:
    """How far the training is, in whole epochs or in iterations."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _note(runner: Runner, done: int) -> None:
    if runner.rank == 0:
        write_text(Path(runner.work_dir, NOTE), f'{done}\n')


def _noted(runner: Runner) -> int:
    """How far the training was at the last evaluation. If the folder does not say it, that is now."""
    try:
        return int(Path(runner.work_dir, NOTE).read_text())
    except (OSError, ValueError):
        return _done(runner)


def _has_missed_evaluation(runner: Runner) -> bool:
    """Whether the checkpoint is the run's own, and the evaluation that was due at it is not noted."""
    loop = runner.train_loop
    if runner.val_loop is None or not runner._resume or runner.iter == 0:
        return False
    folders = [runner.work_dir, *(hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook))]
    if not any(is_in(runner._load_from, folder) for folder in folders):
        return False
    if isinstance(loop, EpochBasedTrainLoop):
        last = loop.max_epochs
    elif isinstance(loop, IterBasedTrainLoop):
        last = loop.max_iters
    else:
        return False
    done = _done(runner)
    loop._decide_current_val_interval()  # of dynamic_intervals
    is_due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
    return is_due and _noted(runner) < done
