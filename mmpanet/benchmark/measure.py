# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Times of several functions side by side, and what can be said of their ratios."""

import time
from statistics import median
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

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


def synchronize(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    function()
    synchronize(device)
    return time.perf_counter() - start


def interleave(
    functions: Dict[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    warmup: int = 1,
    progress: Optional[Callable[[str], None]] = None,
) -> Dict[str, List[float]]:
    """Time functions in turn: A B C, C B A, and so on.

    A round is one way there and one back, and the time of a function in it the mean of both, so that a machine that
    slows down or speeds up steadily during a round does so for all of them alike.

    Args:
        functions: By name.
        rounds: How many rounds count.
        device: Where they run; it is waited for.
        warmup: Rounds before these, which do not count.
        progress: Is told what is going on, a line a round.

    Returns:
        Seconds a round, by name.
    """
    times: Dict[str, List[float]] = {name: [] for name in functions}
    order = [*functions, *reversed(functions)]
    for i in range(-warmup, rounds):
        took = dict.fromkeys(functions, 0.0)
        for name in order:
            took[name] += seconds_of(functions[name], device) / 2
        if progress:
            what = f'round {i + 1}/{rounds}' if i >= 0 else 'warm-up'
            progress(f'{what}: ' + ', '.join(f'{name} {seconds:.3f} s' for name, seconds in took.items()))
        if i >= 0:
            for name, seconds in took.items():
                times[name].append(seconds)
    return times


def paired_ratio(times: Sequence[float], baseline: Sequence[float], seed: int = 0) -> Ratio:
    """Median of the ratios of rounds, and the interval that the medians of 95 % of all resamples of rounds are in."""
    ratios = np.asarray(times) / np.asarray(baseline)
    choices = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[choices], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(median(ratios.tolist()), float(low), float(high))
