# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Trainings in processes of their own, which get killed."""
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from mmengine.fileio.backends import LocalBackend
from tiny_training import run_tool


class Training:
    """``tools/train.py`` in a fork of this process, which has imported everything: a start takes no time.

    Args:
        words: Its command line.
        cut (random.Random): Where given, the process ends by SIGKILL while it writes its first or second checkpoint,
            anywhere in the file.
        limit (int): The largest file that it may write, in bytes; every write beyond is an OSError.
    """

    def __init__(self, words, log, cut=None, limit=None):
        self.log = Path(log)
        self.log.touch()
        self.pid = os.fork()
        if self.pid:
            return
        status = 1
        try:
            os.setsid()
            with open(self.log, 'w') as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            torch.set_num_threads(1)
            if cut is not None:
                LocalBackend.put = cut_off_put(cut)
            if limit is not None:
                import resource
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            run_tool('train', *words)
            status = 0
        except SystemExit as error:
            print(error.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, timeout=120):
        """The exit status, negative for a signal; the process is killed after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        self.kill()
        raise TimeoutError(f'no end within {timeout} s:\n{self.log.read_text()}')

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill_after(self, seconds, words='', timeout=120):
        """SIGKILL at a time after ``words`` are in the log; whether the process was still running."""
        end = time.monotonic() + timeout
        while words not in self.log.read_text():
            if time.monotonic() > end:
                self.kill()
                raise TimeoutError(f'no {words!r} within {timeout} s:\n{self.log.read_text()}')
            time.sleep(0.001)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return False
            time.sleep(0.001)
        return self.kill() == -signal.SIGKILL


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
            stream.write(content[:int(share * len(content))])
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    return put
