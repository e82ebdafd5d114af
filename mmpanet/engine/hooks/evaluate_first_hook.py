# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from mmdet.registry import HOOKS
from mmpanet.utils.errors import ConfigError


@HOOKS.register_module()
class EvaluateFirstHook(Hook):
    """Evaluates the model once before the first step of training, with the validation of the config.

    It shows what a model brings along: the AP of a checkpoint that ``load_from`` names, or of a swapped model before
    it is trained. The metrics stand in the log at step 0, so that they are the first point of the curves of AP. A
    training that resumes does not evaluate again.

    Raises:
        ConfigError: If the config has no validation.
    """

    # After all other hooks, the averaged weights of EMAHook among them.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        if runner.val_loop is None:
            raise ConfigError(
                'EvaluateFirstHook: the config has no validation (val_cfg, val_dataloader and val_evaluator); leave '
                'it out of custom_hooks'
            )
        if runner.iter == 0:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):  # it copied the model before the weights were initialized
                    hook.ema_model.module.load_state_dict(hook.src_model.state_dict())
            runner.val_loop.run()
            runner.model.train()
