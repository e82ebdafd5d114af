# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mean and standard deviation over seeds, as Markdown, JSON and a plot."""

from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from mmpanet.utils.errors import DataError
from mmpanet.utils.files import atomic_write, make_folder, write_json, write_text
from mmpanet.utils.palette import BLACK, BLUE
from mmpanet.utils.plots import new_panels
from mmpanet.utils.tables import markdown_table
from .coco_metrics import MAIN_METRICS, metric_titles
from .seed_curves import Curve, curves_of, plot_seed_curves


class SeedSummary(NamedTuple):
    """All seeds of one config with the same overrides. Metrics are in percent."""

    name: str
    options: List[str]  # KEY=VALUE
    seeds: List[int]
    values: Dict[str, List[float]]  # one per seed, by metric, such as 'segm_mAP_50'
    parameters: Optional[int]
    seconds_per_step: Optional[float]  # the median over seeds
    curves: Dict[str, Curve]  # by metric

    @property
    def label(self) -> str:
        return ' '.join([self.name, *self.options])

    def cell(self, metric: str) -> str:
        """Mean and standard deviation over seeds."""
        values = self.values.get(metric)
        if not values:
            return '-'
        return f'{mean(values):.1f}' + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def summarize_seeds(
    results: Iterable[Dict[str, Any]], names: Sequence[str], variants: bool = False
) -> List[SeedSummary]:
    """One summary per config, in the order of ``names``, of the runs that have finished.

    Args:
        results: The runs, as :class:`~mmpanet.evaluation.experiments.Results` yields them.
        names: Names of the configs.
        variants: Whether to include runs with overrides. They follow the config itself, in the order of the results.

    Raises:
        DataError: If no run of these configs has finished.
    """
    rows: Dict[Tuple[str, Tuple[str, ...]], List[Dict[str, Any]]] = {}
    for result in results:
        options = tuple(result.get('options', ()))
        if 'metrics' in result and result['name'] in names and (variants or not options):
            rows.setdefault((result['name'], options), []).append(result)
    if not rows:
        raise DataError('no run has finished yet, so there is no table')
    summaries = []
    for name, options in sorted(rows, key=lambda row: (names.index(row[0]), bool(row[1]))):
        runs = sorted(rows[name, options], key=lambda run: run['seed'])
        metrics = sorted({metric for run in runs for metric in run['metrics']})
        values = {
            metric: [100 * run['metrics'][metric] for run in runs if metric in run['metrics']] for metric in metrics
        }
        steps = [run['seconds_a_step'] for run in runs if run.get('seconds_a_step')]
        summaries.append(
            SeedSummary(
                name,
                list(options),
                [run['seed'] for run in runs],
                values,
                runs[-1].get('parameters'),
                median(steps) if steps else None,
                curves_of(runs),
            )
        )
    return summaries


def seed_table(summaries: Sequence[SeedSummary], times: bool = True) -> str:
    """The table in Markdown, one row per summary.

    Args:
        summaries: The rows.
        times: Whether there is a column of the seconds per step.
    """
    titles = metric_titles(metric for one in summaries for metric in one.values if one.values[metric])
    headers = ['config', *titles.values(), 'M parameters', *(['s per step'] if times else []), 'seeds']
    rows = []
    for one in summaries:
        row = [' '.join(f'`{word}`' for word in (one.name, *one.options)), *map(one.cell, titles)]
        row.append('-' if one.parameters is None else f'{one.parameters / 1e6:.2f}')
        if times:
            row.append('-' if one.seconds_per_step is None else f'{one.seconds_per_step:.2f}')
        rows.append([*row, ', '.join(map(str, one.seeds))])
    return markdown_table(rows, headers)


def write_seed_summary(summaries: Sequence[SeedSummary], folder: Path, stem: str, times: bool = True) -> List[Path]:
    """Write ``stem``.md, .table.json, .png if there is an AP, and _curves.png if a run was evaluated more than once."""
    make_folder(folder, '--out-dir')
    table, data, picture = (folder / f'{stem}{suffix}' for suffix in ('.md', '.table.json', '.png'))
    write_text(table, seed_table(summaries, times))
    write_json(data, [one._asdict() for one in summaries])
    files = [table, data]
    if any(metric in one.values for metric in MAIN_METRICS for one in summaries):
        with atomic_write(picture) as part:
            plot_seeds(summaries, part)
        files.append(picture)
    if any(len(curve) > 1 for one in summaries for curve in one.curves.values()):
        files.append(folder / f'{stem}_curves.png')
        with atomic_write(files[-1]) as part:
            plot_seed_curves({one.label: one.curves for one in summaries}, part)
    return files


def plot_seeds(summaries: Sequence[SeedSummary], file: Path) -> None:
    """Box and mask AP of each summary: one dot per seed, and a bar for mean and standard deviation."""
    metrics = [metric for metric in MAIN_METRICS if any(metric in one.values for one in summaries)]
    labels = [f'{one.name}\n{" ".join(map(_short, one.options))}'.rstrip() for one in summaries]
    label_width = 0.09 * max(len(line) for label in labels for line in label.splitlines())  # inches
    size = (3.8 * len(metrics) + label_width, 1 + 0.36 * len(summaries))
    figure, panels = new_panels(len(metrics), size, grid='x', sharey=True)
    for panel, (metric, title) in zip(panels, metric_titles(metrics).items()):
        for place, one in enumerate(summaries):
            values = one.values.get(metric, [])
            if values:
                error = stdev(values) if len(values) > 1 else None
                panel.errorbar(mean(values), place, xerr=error, fmt='|', color=BLACK, capsize=3, markersize=12)
                panel.plot(values, [place] * len(values), 'o', color=BLUE, alpha=0.6, markersize=4)
        panel.set_xlabel(title)
    panels[0].set_yticks(range(len(summaries)), labels)
    panels[0].invert_yaxis()
    figure.savefig(file)


def _short(option: str) -> str:
    """An override as a label, with the last part of its key and of a path."""
    key, _, value = option.partition('=')
    return f'{key.rpartition(".")[2]}={value.rpartition("/")[2]}'
