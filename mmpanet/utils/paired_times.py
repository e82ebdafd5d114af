# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Times of several functions that run in turn, and how many times as long one takes as another."""

from statistics import median
from time import perf_counter
from typing import Callable, Dict, List, Mapping, NamedTuple, Sequence

import numpy as np
import torch

RESAMPLES = 5000
CONFIDENCE = 0.95


class Ratio(NamedTuple):
    """A median of paired ratios with its bootstrap interval."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.median:.2f} ({self.low:.2f} to {self.high:.2f})'


def paired_ratio(times: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Ratio:
    """The median of the ratios of paired rounds, with its 95 % interval from a bootstrap over rounds.

    Of five rounds or fewer the interval is the smallest and the largest ratio.
    """
    ratios = np.asarray(times) / np.asarray(baseline)
    choices = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[choices], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(median(ratios.tolist()), float(low), float(high))


def time_in_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda line: None,
) -> Dict[str, List[float]]:
    """Time functions in turn: A B C, C B A, and so on.

    A round goes through the functions forward and backward; the time of a function in a round is the mean of both. A
    machine that becomes slower or faster during a round therefore changes all times alike. One more round at the start
    warms up and does not count.

    Args:
        functions: What to time, by name.
        rounds: How many rounds count.
        device: Where the functions run. Each time includes all work that was queued there.
        progress: Called with one line per round.

    Returns:
        Seconds of each round, by name.
    """
    times: Dict[str, List[float]] = {name: [] for name in functions}
    for i in range(rounds + 1):
        seconds = dict.fromkeys(functions, 0.0)
        for name in [*functions, *reversed(list(functions))]:
            start = now(device)
            functions[name]()
            seconds[name] += (now(device) - start) / 2
        progress(
            (f'round {i}/{rounds}: ' if i else 'warm-up: ')
            + ', '.join(f'{name} {value:.3f} s' for name, value in seconds.items())
        )
        if i:
            for name, value in seconds.items():
                times[name].append(value)
    return times


def now(device: torch.device) -> float:
    """Seconds of a clock, after all work that was queued on a device."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    elif device.type != 'cpu' and hasattr(getattr(torch, device.type, None), 'synchronize'):
        getattr(torch, device.type).synchronize()  # torch.xpu, torch.npu, torch.mps
    return perf_counter()
