# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmpanet.engine.run_log import RunLog
from .save_then_remove_hook import is_in


class EvaluateMissedHook(Hook):
    """Evaluates a resumed model at once, if the training was killed between the checkpoint and its evaluation.

    mmengine saves a checkpoint before it evaluates the model, and a training that resumes from it goes on with the next
    epoch. The curve of AP would lack a point, and after the last epoch the AP of an earlier one would be taken for that
    of the last checkpoint. The runner of ``tools/train.py`` has this hook.
    """

    # After all other hooks, the averaged weights of EMAHook among them.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        missed = [_has_missed_evaluation(runner)]
        broadcast_object_list(missed)  # the folder of a process may lack the log of the first one
        if missed[0]:
            runner.logger.info('the resumed checkpoint has not been evaluated yet: it is evaluated now')
            runner.val_loop.run()
            runner.model.train()


def _has_missed_evaluation(runner: Runner) -> bool:
    """Whether the checkpoint lies in the run's own folder, and the logs there lack the evaluation that was due."""
    loop = runner.train_loop
    if runner.val_loop is None or not runner._resume or not is_in(runner._load_from, runner.work_dir):
        return False
    evaluations = RunLog.read(runner.work_dir).evaluations
    if isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        loop._decide_current_val_interval()  # of dynamic_intervals
    if isinstance(loop, EpochBasedTrainLoop):
        done, last = runner.epoch, loop.max_epochs
        evaluated = any(one.epoch == done for one in evaluations)
    elif isinstance(loop, IterBasedTrainLoop):
        done, last = runner.iter, loop.max_iters
        evaluated = any(one.iteration > done - loop.val_interval for one in evaluations)
    else:
        return False
    is_due = done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
    return done > 0 and is_due and not evaluated
