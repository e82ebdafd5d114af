# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""AP during training, over seeds, as curves."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, Mapping, Sequence

from mmpanet.utils.palette import line_styles
from mmpanet.utils.plots import new_panels
from .coco_metrics import MAIN_METRICS, metric_titles

Curve = Dict[int, Sequence[float]]  # by epoch, the values in percent, one per seed that was evaluated after it


def curves_of(runs: Sequence[Mapping[str, Any]]) -> Dict[str, Curve]:
    """The curves of box and mask AP of several seeds.

    Args:
        runs: Lines of the results, as :func:`~mmpanet.evaluation.experiments.run_all` writes them. Those without
            ``curve``, and evaluations that belong to no epoch, add nothing.
    """
    curves: Dict[str, Curve] = {}
    for metric in MAIN_METRICS:
        points: Dict[int, list] = {}
        for run in runs:
            for point in run.get('curve', ()):
                if metric in point and point['epoch'] is not None:
                    points.setdefault(point['epoch'], []).append(100 * point[metric])
        if points:
            curves[metric] = {epoch: points[epoch] for epoch in sorted(points)}
    return curves


def plot_seed_curves(curves: Mapping[str, Mapping[str, Curve]], file: Path) -> None:
    """Draw one line per label for the mean over seeds, with a band of one standard deviation to either side.

    Args:
        curves: By label, then by metric.
        file: The picture.
    """
    metrics = [metric for metric in MAIN_METRICS if any(metric in one for one in curves.values())]
    figure, panels = new_panels(len(metrics), (5 * len(metrics), 4 + 0.2 * len(curves)), grid='both')
    for panel, (metric, title) in zip(panels, metric_titles(metrics).items()):
        for (label, one), style in zip(curves.items(), line_styles(len(curves))):
            curve = one.get(metric, {})
            means = [mean(values) for values in curve.values()]
            errors = [stdev(values) if len(values) > 1 else 0.0 for values in curve.values()]
            panel.plot(list(curve), means, marker='o', **style, label=label, markersize=4)
            low, high = ([m + sign * e for m, e in zip(means, errors)] for sign in (-1, 1))
            panel.fill_between(list(curve), low, high, color=style['color'], alpha=0.15, linewidth=0)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel('epochs')
        panel.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*panels[0].get_legend_handles_labels(), loc='outside lower center', fontsize=8, frameon=False)
    figure.savefig(file)
