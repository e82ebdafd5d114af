# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a model costs beside time: parameters, memory."""

import multiprocessing
import os
from pathlib import Path
from typing import Optional

import torch
from mmengine.config import Config

from .contenders import Contender
from .subject import Setting, Subject
from .workload import Workload

# Let glibc give back what is freed, so that what a process holds is what its tensors need.
MALLOC = {'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536'}
STATUS = Path('/proc/self/status')


def parameters(subject: Subject) -> int:
    return sum(parameter.numel() for parameter in subject.model.parameters())


def peak_memory(contender: Contender, workload: Workload, setting: Setting, mode: str) -> Optional[int]:
    """The most bytes that the model, its optimizer and one run of it hold at a time.

    In a process of its own. On a CPU it is the largest resident set, without the pages of files such as torch's
    libraries, less what the process holds before the model is built; on a GPU what torch's allocator has handed out.
    None where the system does not tell.
    """
    device = torch.device(setting.device)
    if device.type == 'cpu' and not STATUS.exists():
        return None
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    before = {key: os.environ.get(key) for key in MALLOC}
    os.environ.update(MALLOC)
    try:
        process = context.Process(
            target=_measure_memory,
            args=(
                sender,
                contender._replace(cfg=contender.cfg.to_dict()),
                workload,
                setting,
                mode,
                torch.get_num_threads(),
            ),
        )
        process.start()
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError(f'the process that measures memory ended before it had ({mode})') from None
    finally:
        process.join()


def _measure_memory(
    sender, contender: Contender, workload: Workload, setting: Setting, mode: str, threads: int
) -> None:
    import mmpanet  # noqa: F401  registers its modules

    torch.set_num_threads(threads)
    device = torch.device(setting.device)
    before = _resident('RssAnon') if device.type == 'cpu' else 0
    subject = Subject(contender._replace(cfg=Config(contender.cfg)), workload, setting)
    subject.run(mode)  # the first run compiles, and allocates the optimizer's state
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        subject.run(mode)
        sender.send(torch.cuda.max_memory_allocated(device))
        return
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    subject.run(mode)
    sender.send(_resident('VmHWM') - _resident('RssFile') - before)


def _resident(key: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f'{key}:'))
    return int(line.split()[1]) * 1024
