# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Several work folders: a table of AP and cost, and a plot of the curves."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from mmpanet.utils.errors import DataError
from mmpanet.utils.files import atomic_write, make_folder, write_json, write_text
from mmpanet.utils.palette import line_styles
from mmpanet.utils.plots import new_panels
from mmpanet.utils.tables import markdown_table
from .coco_metrics import MAIN_METRICS, metric_titles, percent
from .experiments import count_parameters
from .run_log import RunLog


class ComparedRun(NamedTuple):
    """One work folder."""

    name: str
    log: RunLog
    parameters: Optional[int]  # None if there is no config, or if it cannot be built here

    @classmethod
    def read(cls, work_dir: Path, name: str) -> 'ComparedRun':
        """Read the logs, and count the parameters of the config that mmengine has left beside them.

        Raises:
            DataError: If there are no logs.
        """
        if not work_dir.is_dir():
            raise DataError(f'{work_dir}: no such folder')
        log = RunLog.read(work_dir)
        if not log.steps and not log.evaluations:
            raise DataError(f'{work_dir}: no run in it has logged anything; looked for */vis_data/scalars.json')
        configs = sorted(work_dir.glob('*.py'))
        return cls(name, log, _parameters_if_buildable(configs[0]) if len(configs) == 1 else None)

    @property
    def metrics(self) -> Dict[str, float]:
        """The last evaluation, as fractions."""
        return self.log.evaluations[-1].metrics if self.log.evaluations else {}

    def best(self, metric: str) -> Optional[float]:
        """The largest value over all evaluations."""
        return max((one.metrics[metric] for one in self.log.evaluations if metric in one.metrics), default=None)

    def as_dict(self) -> Dict[str, Any]:
        """Everything of the table and the curves of AP, for JSON."""
        return dict(
            name=self.name,
            iterations=self.log.steps[-1]['iter'] if self.log.steps else None,
            parameters=self.parameters,
            seconds_per_step=self.log.seconds_per_step,
            memory_mib=self.log.peak_memory,
            evaluations=[one._asdict() for one in self.log.evaluations],
        )


def read_runs(work_dirs: Sequence[Path], names: Sequence[str] = ()) -> List[ComparedRun]:
    """Read the runs of some work folders.

    Args:
        work_dirs: The folders.
        names: Names for the table, one per folder. By default the shortest ends of the paths that differ.

    Raises:
        DataError: If a folder has no logs, or if there are too few, too many or equal names.
    """
    names = list(names) or shortest_names(work_dirs)
    if len(names) != len(work_dirs):
        raise DataError(f'{len(names)} names for {len(work_dirs)} folders')
    if len(set(names)) < len(names):
        raise DataError(f'two runs would have the same name: {", ".join(names)}')
    return [ComparedRun.read(work_dir, name) for work_dir, name in zip(work_dirs, names)]


def shortest_names(paths: Sequence[Path]) -> List[str]:
    """The last parts of each path, as few as suffice to make all names different."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts))):
        names = ['/'.join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def comparison_table(runs: Sequence[ComparedRun]) -> str:
    """The table in Markdown, one row per run. Box and mask AP come with the difference to the first run."""
    titles = metric_titles(metric for run in runs for metric in run.metrics)
    best = {metric: title for metric, title in titles.items() if metric in MAIN_METRICS}
    headers = ['run', 'iterations', *titles.values(), *(f'best {title}' for title in best.values())]
    headers += ['M parameters', 's per step', 'GiB']
    rows = []
    for run in runs:
        cells = [f'`{run.name}`', str(run.log.steps[-1]['iter']) if run.log.steps else '-']
        for metric in titles:
            cell = _percent_or_dash(run.metrics.get(metric))
            if run is not runs[0] and metric in best and metric in run.metrics and metric in runs[0].metrics:
                cell += f' ({100 * (run.metrics[metric] - runs[0].metrics[metric]):+.1f})'
            cells.append(cell)
        cells += [_percent_or_dash(run.best(metric)) for metric in best]
        seconds, memory = run.log.seconds_per_step, run.log.peak_memory
        cells.append('-' if run.parameters is None else f'{run.parameters / 1e6:.2f}')
        cells.append('-' if seconds is None else f'{seconds:.2f}')
        cells.append('-' if memory is None else f'{memory / 1024:.1f}')
        rows.append(cells)
    filled = [column for column in range(len(headers)) if any(row[column] != '-' for row in rows)]
    return markdown_table([[row[column] for column in filled] for row in rows], [headers[column] for column in filled])


def write_comparison(runs: Sequence[ComparedRun], out_dir: Path) -> List[Path]:
    """Write ``comparison.md``, ``.json`` and ``.png``."""
    make_folder(out_dir, '--out-dir')
    table, data, picture = (out_dir / f'comparison.{suffix}' for suffix in ('md', 'json', 'png'))
    write_text(table, comparison_table(runs))
    write_json(data, [run.as_dict() for run in runs])
    with atomic_write(picture) as part:
        plot_curves(runs, part)
    return [table, data, picture]


def plot_curves(runs: Sequence[ComparedRun], file: Path) -> None:
    """Training loss, and box and mask AP, over iterations."""
    metrics = [metric for metric in MAIN_METRICS if any(run.best(metric) is not None for run in runs)]
    figure, panels = new_panels(1 + len(metrics), (4.2 * (1 + len(metrics)), 3.4), grid='both')
    for run, style in zip(runs, line_styles(len(runs))):
        steps = run.log.steps
        panels[0].plot([step['iter'] for step in steps], [step['loss'] for step in steps], **style, label=run.name)
        for panel, metric in zip(panels[1:], metrics):
            evaluations = [one for one in run.log.evaluations if metric in one.metrics]
            iterations = [one.iteration for one in evaluations]
            values = [100 * one.metrics[metric] for one in evaluations]
            panel.plot(iterations, values, marker='o', **style, label=run.name, markersize=4)
    for panel, title in zip(panels, ['training loss', *metric_titles(metrics).values()]):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel('iterations')
    panels[0].set_ylim(bottom=0)
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(file)


def _percent_or_dash(value: Optional[float]) -> str:
    return '-' if value is None else percent(value)


def _parameters_if_buildable(config: Path) -> Optional[int]:
    try:
        return count_parameters(config)
    except Exception:  # a config may need anything that is not installed here, and the table does without the number
        return None
