# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a run of mmengine's left in its work folder."""

import json
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Dict, List, NamedTuple, Optional

METRIC_PREFIX = 'coco/'


class Evaluation(NamedTuple):
    """COCO metrics (fractions) after so many iterations."""

    iteration: int
    metrics: Dict[str, float]


class RunLog(NamedTuple):
    """The lines of ``<work folder>/<time>/vis_data/scalars.json`` of all starts of one run.

    Of iterations that were trained again after a resume, the last time counts.
    """

    steps: List[dict]  # of training: iter, loss, time, ...
    evaluations: List[Evaluation]

    @classmethod
    def read(cls, work_dir: Path) -> 'RunLog':
        """Lists are empty where there is nothing; a last line that was cut off is left out."""
        steps: Dict[int, dict] = {}
        evaluations: Dict[int, Evaluation] = {}
        iteration = 0
        for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
            for line in file.read_text().splitlines():
                try:
                    values = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if 'loss' in values:
                    iteration = int(values.get('iter', values.get('step', 0)))
                    steps[iteration] = {**values, 'iter': iteration}
                # COCO's evaluation gives -1 where there is no object of a size.
                metrics = {
                    key[len(METRIC_PREFIX) :]: value
                    for key, value in values.items()
                    if key.startswith(METRIC_PREFIX) and value >= 0
                }
                if metrics:
                    evaluations[iteration] = Evaluation(iteration, metrics)
        return cls([steps[key] for key in sorted(steps)], [evaluations[key] for key in sorted(evaluations)])

    @staticmethod
    def seconds(work_dir: Path) -> float:
        """Of all starts, each from the time that its folder is named after to its last line."""
        files = Path(work_dir).glob(f'{"[0-9]" * 8}_{"[0-9]" * 6}/vis_data/scalars.json')
        return sum(
            file.stat().st_mtime - datetime.strptime(file.parts[-3], '%Y%m%d_%H%M%S').timestamp() for file in files
        )

    @property
    def seconds_a_step(self) -> Optional[float]:
        """The median over the lines of the log."""
        return round(median(step['time'] for step in self.steps), 4) if self.steps else None

    @property
    def memory(self) -> Optional[int]:
        """The largest peak that was logged, in MiB; on a GPU alone."""
        return max((step['memory'] for step in self.steps if 'memory' in step), default=None)
