# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Work folders beside each other: a table of AP and cost, and a plot of the curves."""

import json
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

from .experiments import ExperimentError, parameters
from .results_table import BRANCHES, COLUMNS, MAIN
from .run_log import RunLog

# Okabe and Ito's, which the colour-blind can tell apart
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')


class ComparedRun(NamedTuple):
    """One work folder."""

    name: str
    log: RunLog
    parameters: Optional[int]  # of the model; None if the config is not there, or cannot be built here

    @classmethod
    def read(cls, work_dir: Path, name: str) -> 'ComparedRun':
        """Read the logs, and count the parameters of the config that mmengine left beside them.

        Raises:
            ExperimentError: If there are no logs.
        """
        if not work_dir.is_dir():
            raise ExperimentError(f'{work_dir}: no such folder')
        log = RunLog.read(work_dir)
        if not log.steps and not log.evaluations:
            raise ExperimentError(f'{work_dir}: no run in it has logged anything; looked for */vis_data/scalars.json')
        configs = sorted(work_dir.glob('*.py'))
        return cls(name, log, _parameters(configs[0]) if len(configs) == 1 else None)

    @property
    def metrics(self) -> Dict[str, float]:
        """Of the last evaluation, as fractions."""
        return self.log.evaluations[-1].metrics if self.log.evaluations else {}

    def best(self, metric: str) -> Optional[float]:
        """Over all evaluations."""
        return max((one.metrics[metric] for one in self.log.evaluations if metric in one.metrics), default=None)

    def as_dict(self) -> dict:
        """For JSON."""
        return dict(
            name=self.name,
            iterations=self.log.steps[-1]['iter'] if self.log.steps else None,
            parameters=self.parameters,
            seconds_a_step=self.log.seconds_a_step,
            memory_mib=self.log.memory,
            evaluations=[one._asdict() for one in self.log.evaluations],
        )


def read_runs(work_dirs: Sequence[Path], names: Sequence[str] = ()) -> List[ComparedRun]:
    """The runs of some work folders.

    Args:
        work_dirs: Their folders.
        names: For the table; by default the shortest ends of the folders' paths that tell them apart.

    Raises:
        ExperimentError: If a folder has no logs, or the names are not as many, or not different.
    """
    names = list(names) or shortest_names(work_dirs)
    if len(names) != len(work_dirs):
        raise ExperimentError(f'{len(names)} names for {len(work_dirs)} folders')
    if len(set(names)) < len(names):
        raise ExperimentError(f'two runs would have one name: {", ".join(names)}')
    return [ComparedRun.read(work_dir, name) for work_dir, name in zip(work_dirs, names)]


def shortest_names(paths: Sequence[Path]) -> List[str]:
    """The last parts of each path, as many as it takes for them to differ."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ['/'.join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def markdown(runs: Sequence[ComparedRun]) -> str:
    """A line a run; the difference to the first one behind its AP."""
    metrics = [
        f'{branch}_{column}'
        for branch in BRANCHES
        for column in COLUMNS
        if any(f'{branch}_{column}' in run.metrics for run in runs)
    ]
    titles = [f'{BRANCHES[branch]} {COLUMNS[column]}' for branch, column in (m.split('_', 1) for m in metrics)]
    bests = [f'{branch}_{MAIN}' for branch in BRANCHES if f'{branch}_{MAIN}' in metrics]
    head = [
        'run',
        'iterations',
        *titles,
        *(f'best {titles[metrics.index(metric)]}' for metric in bests),
        'M parameters',
        's a step',
        'GiB',
    ]
    lines = [head, ['---'] * len(head)]
    for run in runs:
        cells = [f'`{run.name}`', str(run.log.steps[-1]['iter']) if run.log.steps else '-']
        for metric in metrics:
            value, first = run.metrics.get(metric), runs[0].metrics.get(metric)
            difference = ''
            if run is not runs[0] and value is not None and first is not None and metric.endswith(MAIN):
                difference = f' ({100 * (value - first):+.1f})'
            cells.append(_percent(value) + difference)
        cells += [_percent(run.best(metric)) for metric in bests]
        cells += [
            '-' if run.parameters is None else f'{run.parameters / 1e6:.2f}',
            '-' if run.log.seconds_a_step is None else f'{run.log.seconds_a_step:.2f}',
            '-' if run.log.memory is None else f'{run.log.memory / 1024:.1f}',
        ]
        lines.append(cells)
    # A column without anything in it is left out.
    kept = [column for column in range(len(head)) if any(line[column] != '-' for line in lines[2:])]
    return ''.join('| ' + ' | '.join(line[column] for column in kept) + ' |\n' for line in lines)


def write(runs: Sequence[ComparedRun], out_dir: Path) -> List[Path]:
    """``comparison.md``, ``.json`` and ``.png`` in a folder."""
    out_dir.mkdir(parents=True, exist_ok=True)
    table, data, picture = (out_dir / f'comparison.{suffix}' for suffix in ('md', 'json', 'png'))
    table.write_text(markdown(runs))
    data.write_text(json.dumps([run.as_dict() for run in runs], indent=2) + '\n')
    plot(runs, picture)
    return [table, data, picture]


def plot(runs: Sequence[ComparedRun], file: Path) -> None:
    """Loss, and box and mask AP, over iterations."""
    from matplotlib.figure import Figure

    branches = [branch for branch in BRANCHES if any(run.best(f'{branch}_{MAIN}') is not None for run in runs)]
    figure = Figure(figsize=(4.2 * (1 + len(branches)), 3.4), dpi=150, layout='constrained')
    panels = figure.subplots(1, 1 + len(branches), squeeze=False)[0]
    for run, colour in zip(runs, COLOURS * len(runs)):
        panels[0].plot(
            [step['iter'] for step in run.log.steps],
            [step['loss'] for step in run.log.steps],
            color=colour,
            label=run.name,
        )
        for panel, branch in zip(panels[1:], branches):
            points = [
                (one.iteration, 100 * one.metrics[f'{branch}_{MAIN}'])
                for one in run.log.evaluations
                if f'{branch}_{MAIN}' in one.metrics
            ]
            panel.plot(*zip(*points) if points else ((), ()), 'o-', color=colour, label=run.name, markersize=4)
    for panel, title in zip(panels, ['training loss', *(f'{BRANCHES[branch]} AP' for branch in branches)]):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel('iterations')
        panel.grid(alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(file)


def _percent(value: Optional[float]) -> str:
    return '-' if value is None else f'{100 * value:.1f}'


def _parameters(config: Path) -> Optional[int]:
    try:
        return parameters(config)
    except Exception:  # a config may name anything that is not installed here; the table does without
        return None
