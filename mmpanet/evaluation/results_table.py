# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Mean and standard deviation over seeds: as Markdown, JSON and a plot."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence

from .experiments import ExperimentError

COLUMNS = {'mAP': 'AP', 'mAP_50': 'AP50', 'mAP_75': 'AP75', 'mAP_s': 'small', 'mAP_m': 'medium', 'mAP_l': 'large'}
BRANCHES = {'bbox': 'box', 'segm': 'mask'}
MAIN = 'mAP'


class Summary(NamedTuple):
    """All seeds of one config, with one choice of overrides; metrics in percent."""

    name: str
    options: List[str]  # KEY=VALUE
    seeds: List[int]
    values: Dict[str, List[float]]  # by metric, e.g. 'segm_mAP_50'
    parameters: Optional[int]
    seconds_a_step: Optional[float]  # the median over seeds

    @property
    def title(self) -> str:
        return ' '.join([self.name, *self.options])

    def cell(self, metric: str) -> str:
        """Mean and standard deviation over seeds."""
        values = self.values.get(metric)
        if not values:
            return '-'
        return f'{mean(values):.1f}' + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def summarise(results: Iterable[dict], names: Sequence[str], variants: bool = False) -> List[Summary]:
    """A summary a config, in the order of ``names``, of those that have finished.

    Args:
        results: Of runs, as :class:`~mmpanet.evaluation.experiments.Results` gives them.
        names: Of the configs.
        variants: Also those with overrides, behind the config itself and in the order of the results.

    Raises:
        ExperimentError: If no run of them has finished.
    """
    rows: Dict[tuple, List[dict]] = {}
    for result in results:
        options = tuple(result.get('options', ()))
        if 'metrics' in result and result['name'] in names and (variants or not options):
            rows.setdefault((result['name'], options), []).append(result)
    if not rows:
        raise ExperimentError('no run has finished yet, so there is no table')
    summaries = []
    for name, options in sorted(rows, key=lambda row: (names.index(row[0]), bool(row[1]))):
        runs = sorted(rows[name, options], key=lambda run: run['seed'])
        metrics = sorted({metric for run in runs for metric in run['metrics']})
        values = {
            metric: [100 * run['metrics'][metric] for run in runs if metric in run['metrics']] for metric in metrics
        }
        steps = sorted(run['seconds_a_step'] for run in runs if run.get('seconds_a_step'))
        summaries.append(
            Summary(
                name,
                list(options),
                [run['seed'] for run in runs],
                values,
                runs[-1].get('parameters'),
                steps[len(steps) // 2] if steps else None,
            )
        )
    return summaries


def markdown(summaries: Sequence[Summary], times: bool = True) -> str:
    """A line a summary: box and mask AP, parameters, time a step if wanted, seeds."""
    branches = [branch for branch in BRANCHES if any(f'{branch}_{MAIN}' in one.values for one in summaries)]
    metrics = [
        f'{branch}_{column}'
        for branch in branches
        for column in COLUMNS
        if any(one.values.get(f'{branch}_{column}') for one in summaries)
    ]
    titles = [
        f'{BRANCHES[branch]} {COLUMNS[column]}' for branch, column in (metric.split('_', 1) for metric in metrics)
    ]
    head = ['config', *titles, 'M parameters', *(['s a step'] if times else []), 'seeds']
    lines = [head, ['---'] * len(head)]
    for one in summaries:
        lines.append(
            [
                ' '.join(f'`{word}`' for word in (one.name, *one.options)),
                *map(one.cell, metrics),
                '-' if one.parameters is None else f'{one.parameters / 1e6:.2f}',
                *([_seconds(one.seconds_a_step)] if times else []),
                ', '.join(map(str, one.seeds)),
            ]
        )
    return ''.join('| ' + ' | '.join(line) + ' |\n' for line in lines)


def _seconds(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f}'


def write(summaries: Sequence[Summary], folder: Path, stem: str, times: bool = True) -> List[Path]:
    """``stem``.md, .table.json and .png in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table, data, picture = (folder / f'{stem}{suffix}' for suffix in ('.md', '.table.json', '.png'))
    table.write_text(markdown(summaries, times))
    data.write_text(json.dumps([one._asdict() for one in summaries], indent=2) + '\n')
    plot(summaries, picture)
    return [table, data, picture]


def plot(summaries: Sequence[Summary], file: Path) -> None:
    """Box and mask AP of every config, a dot a seed and a bar for their mean and standard deviation."""
    from matplotlib.figure import Figure

    branches = [branch for branch in BRANCHES if any(f'{branch}_{MAIN}' in one.values for one in summaries)]
    labels = [f'{one.name}\n{" ".join(map(_short, one.options))}'.rstrip() for one in summaries]
    label_width = 0.09 * max(len(line) for label in labels for line in label.splitlines())  # inches
    figure = Figure(figsize=(3.8 * len(branches) + label_width, 1 + 0.36 * len(summaries)), layout='constrained')
    panels = figure.subplots(1, len(branches), sharey=True, squeeze=False)[0]
    places = range(len(summaries))
    for panel, branch in zip(panels, branches):
        for place, one in zip(places, summaries):
            values = one.values.get(f'{branch}_{MAIN}', [])
            if values:
                panel.errorbar(
                    mean(values),
                    place,
                    xerr=stdev(values) if len(values) > 1 else None,
                    fmt='|',
                    color='black',
                    capsize=3,
                    markersize=12,
                )
                panel.plot(values, [place] * len(values), 'o', color='#0072B2', alpha=0.6, markersize=4)
        panel.set_xlabel(f'{BRANCHES[branch]} AP')
        panel.grid(axis='x', alpha=0.3)
        panel.spines[['top', 'right']].set_visible(False)
    panels[0].set_yticks(list(places), labels)
    panels[0].invert_yaxis()
    figure.savefig(file, dpi=150)


def _short(option: str) -> str:
    """An override as a label: the last part of its key, and of a path."""
    key, _, value = option.partition('=')
    return f'{key.rpartition(".")[2]}={value.rpartition("/")[2]}'
