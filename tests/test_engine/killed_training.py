# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Trainings in processes of their own, which get killed."""

import os
import random
import resource
import signal
from pathlib import Path

import torch
from mmengine.fileio.backends import LocalBackend
from mmengine.runner import Runner
from tiny_training import fresh_processes, run_tool


class Training:
    """``tools/train.py`` in a process of its own, which starts with everything imported.

    Args:
        words: Its command line.
        log: The file that its output goes to.
        cut (int): Where given, a seed, and the process ends by SIGKILL while it writes its first or second checkpoint,
            anywhere in the file.
        stop (int): Where given, the process ends by SIGKILL at this call of its hooks after its first iteration. An
            epoch of two iterations has seven such calls.
        limit (int): The largest file that it may write, in bytes; every write beyond is an OSError.
    """

    def __init__(self, words, log, cut=None, stop=None, limit=None):
        self.log = Path(log)
        self.log.touch()
        self.process = fresh_processes().Process(
            target=_train, args=([str(word) for word in words], str(log), cut, stop, limit), daemon=True
        )
        self.process.start()

    def wait(self, timeout=120):
        """The exit status, negative for a signal; the process is killed after ``timeout`` seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f'no end within {timeout} s:\n{self.log.read_text()}')
        return self.process.exitcode

    def kill(self):
        self.process.kill()
        self.process.join()


def _train(words, log, cut, stop, limit):
    with open(log, 'w') as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)
    if cut is not None:
        LocalBackend.put = cut_off_put(random.Random(cut))
    if stop is not None:
        Runner.call_hook = killing_call_hook(stop)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    run_tool('train', *words)


def killing_call_hook(stop):
    """mmengine's way to call hooks, which kills its process."""
    call_hook, begun, calls_left = Runner.call_hook, False, stop

    def call(self, fn_name, **kwargs):
        nonlocal begun, calls_left
        begun = begun or fn_name == 'after_train_iter'
        calls_left -= begun
        if calls_left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        call_hook(self, fn_name, **kwargs)

    return call


def cut_off_put(rng: random.Random):
    """mmengine's way to write a file, which kills its process in the middle of one of the first two checkpoints."""
    writes_left = rng.choice([1, 2])
    share = rng.random()

    def put(self, content, path):
        nonlocal writes_left
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        writes_left -= 1
        with open(path, 'wb') as stream:
            if writes_left:
                stream.write(content)
                return
            stream.write(content[: int(share * len(content))])
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    return put
