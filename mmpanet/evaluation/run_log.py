# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a run of mmengine's runner has left in its work folder."""

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from .coco_metrics import METRIC_PREFIX


class Evaluation(NamedTuple):
    """COCO metrics as fractions."""

    iteration: int  # the last one that was logged before the model was evaluated
    metrics: Dict[str, float]
    epoch: Optional[int] = None  # after which the model was evaluated; None in a training that counts iterations alone


class RunLog(NamedTuple):
    """The lines of ``<work folder>/<time>/vis_data/scalars.json``, over all starts of one run.

    An iteration that was trained again, after a resume or from the start, counts as it was trained last, and what
    came after it in an earlier start does not count any more.
    """

    steps: List[Dict[str, Any]]  # of training: iter, loss, time, ...
    evaluations: List[Evaluation]

    @classmethod
    def read(cls, work_dir: Path) -> 'RunLog':
        """Read the logs of a work folder. The lists are empty where nothing was logged."""
        steps: Dict[int, Dict[str, Any]] = {}
        evaluations: Dict[Tuple[int, int, int], Evaluation] = {}
        iteration, by_epoch = 0, True
        for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
            lines = list(read_json_lines(file))
            new_steps = {
                number: {**values, 'iter': number} for values in lines if (number := _iteration_of(values)) is not None
            }
            if new_steps:
                first = min(new_steps)
                steps = {key: one for key, one in steps.items() if key < first}
                evaluations = {key: one for key, one in evaluations.items() if one.iteration < first}
                iteration = max(steps, default=0)
                by_epoch = 'epoch' in new_steps[first]
            in_this_file: Counter = Counter()
            for values in lines:
                number = _iteration_of(values)
                iteration = iteration if number is None else number
                metrics = coco_metrics_in(values)
                if metrics:
                    # mmengine counts epochs here, or iterations; with IterBasedTrainLoop it is 0 each time.
                    step = int(values.get('step', 0))
                    key = (iteration, step, in_this_file[iteration, step])
                    in_this_file[iteration, step] += 1
                    evaluations[key] = Evaluation(iteration, metrics, step if by_epoch else None)
            steps.update(new_steps)
        return cls([steps[key] for key in sorted(steps)], [evaluations[key] for key in sorted(evaluations)])

    @property
    def seconds_per_step(self) -> Optional[float]:
        """The median over the lines of the log."""
        return round(median(step['time'] for step in self.steps), 4) if self.steps else None

    @property
    def peak_memory(self) -> Optional[int]:
        """The largest peak that was logged, in MiB. Runs on a CPU log none."""
        return max((step['memory'] for step in self.steps if 'memory' in step), default=None)


def _iteration_of(values: Dict[str, Any]) -> Optional[int]:
    """The iteration of a line of training, or None for other lines."""
    return int(values.get('iter', values.get('step', 0))) if 'loss' in values else None


def read_json_lines(file: Path) -> Iterator[Dict[str, Any]]:
    """The objects of a log of mmengine. A last line that was cut off is left out."""
    for line in file.read_text(encoding='utf-8').splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def coco_metrics_in(values: Dict[str, Any]) -> Dict[str, float]:
    """The COCO metrics of a line of the log. COCO's evaluation gives -1 where no object has a size; it is left out."""
    return {
        key[len(METRIC_PREFIX) :]: value
        for key, value in values.items()
        if key.startswith(METRIC_PREFIX) and value >= 0
    }


def total_seconds(work_dir: Path) -> float:
    """The time of all starts of a run, each from the time in the name of its folder to the last line of its log."""
    files = Path(work_dir).glob(f'{"[0-9]" * 8}_{"[0-9]" * 6}/vis_data/scalars.json')
    return sum(file.stat().st_mtime - datetime.strptime(file.parts[-3], '%Y%m%d_%H%M%S').timestamp() for file in files)
