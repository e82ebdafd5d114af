# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""How many times as long one thing takes as another, from times that were measured in turn."""

from statistics import median
from typing import NamedTuple, Sequence

import numpy as np

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
    """The median of the ratios of paired rounds, with its 95 % interval from a bootstrap over rounds."""
    ratios = np.asarray(times) / np.asarray(baseline)
    choices = np.random.default_rng(seed).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[choices], axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Ratio(median(ratios.tolist()), float(low), float(high))
