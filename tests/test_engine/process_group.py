# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Processes that form a gloo group."""

import os
import queue
import time
import traceback

import torch
from tiny_training import fresh_processes
from torch.distributed import TCPStore


def run_in_group(size, function, *args, timeout=120):
    """``function(rank, *args)`` in ``size`` processes, with what torchrun sets in their environment.

    Returns:
        list: What each rank returned (plain Python and NumPy only).

    Raises:
        AssertionError: With the traceback of the rank that failed, or if they have not ended in time.
    """
    context = fresh_processes()
    results = context.Queue()
    # As under torchrun, the ranks meet at a store that is there before them; the system chooses its port.
    store = TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    processes = [
        context.Process(target=_worker, args=(results, rank, size, store.port, function, args), daemon=True)
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    answers, end = {}, time.monotonic() + timeout
    try:
        while len(answers) < size:
            try:
                rank, answer, fault = results.get(timeout=0.2)
            except queue.Empty:
                assert time.monotonic() < end, f'after {timeout} s only ranks {sorted(answers)} have ended'
                dead = [rank for rank, process in enumerate(processes) if process.exitcode and rank not in answers]
                assert not dead, f'rank {dead[0]} died with status {processes[dead[0]].exitcode}'
                continue
            assert not fault, f'rank {rank}:\n{fault}'
            answers[rank] = answer
    finally:
        for process in processes:
            process.join(1)
            if process.is_alive():
                process.kill()
                process.join()
    return [answers[rank] for rank in range(size)]


def _worker(results, rank, size, port, function, args):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(size),
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE='True',
        TORCHELASTIC_RESTART_COUNT='0',
    )
    torch.set_num_threads(1)
    answer, fault = None, ''
    try:
        answer = function(rank, *args)
    except SystemExit as error:
        fault = f'SystemExit: {error.code}'
    except BaseException:
        fault = traceback.format_exc()
    results.put((rank, answer, fault))
    results.close()
    results.join_thread()
    os._exit(0)
