# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""How cost grows with one number: RoIs, image size, batch, or RoIs in a chunk."""

import json
from pathlib import Path
from typing import List, Sequence, Tuple

from .contenders import Contender
from .report import MIB, as_dict, text
from .run import Benchmark, Progress, run_benchmark
from .subject import Setting
from .workload import Workload

SWEPT = {  # and what it is called on the axis of a plot
    'rois': 'RoIs an image',
    'size': 'megapixels an image',
    'batch': 'images',
    'rois_per_chunk': 'RoIs in a chunk',
}
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#999999', '#000000')


def sweep(
    what: str,
    values: Sequence[int],
    contenders: Sequence[Contender],
    modes: Sequence[str],
    workload: Workload,
    setting: Setting,
    folder: Path,
    progress: Progress = lambda line: None,
    **options,
) -> List[Path]:
    """Run the benchmark for every value; write the tables and a plot of time and memory over the value.

    Args:
        what: One of :data:`SWEPT`; ``size`` is the short edge, with the workload's aspect.
        values: Ascending.
        contenders: The models.
        modes: 'inference', 'training' or both.
        workload: What stays the same.
        setting: How they run.
        folder: Where the files go.
        progress: Is told what is going on.
        options: Those of :func:`~.run.run_benchmark`.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    results: List[Tuple[int, Benchmark]] = []
    for value in values:
        benchmark = run_benchmark(
            contenders,
            modes,
            *_at(what, value, workload, setting),
            progress=lambda line, value=value: progress(f'{what} {value}: {line}'),
            **options,
        )
        print(f'{what} {value}\n{text(benchmark)}')
        results.append((value, benchmark))
    record = folder / f'{what}.json'
    record.write_text(json.dumps([dict(value=value, **as_dict(benchmark)) for value, benchmark in results]) + '\n')
    return [record, *(_plot(what, mode, results, folder) for mode in modes)]


def _at(what: str, value: int, workload: Workload, setting: Setting) -> Tuple[Workload, Setting]:
    if what == 'size':
        short = min(workload.height, workload.width)
        edges = [round(edge * value / short / 32) * 32 for edge in (workload.height, workload.width)]
        return workload._replace(height=edges[0], width=edges[1]), setting
    if what == 'rois_per_chunk':
        return workload, setting._replace(rois_per_chunk=value)
    return workload._replace(**{what: value}), setting


def _plot(what: str, mode: str, results: List[Tuple[int, Benchmark]], folder: Path) -> Path:
    from matplotlib.figure import Figure

    x = [b.workload.height * b.workload.width / 1e6 if what == 'size' else value for value, b in results]
    names = [row.name for row in results[0][1].mode(mode)]
    rows = {
        name: [next(row for row in benchmark.mode(mode) if row.name == name) for _, benchmark in results]
        for name in names
    }
    with_memory = all(row.memory is not None for line in rows.values() for row in line)
    figure = Figure(figsize=(5 * (1 + with_memory), 3.6), layout='constrained')
    panels = figure.subplots(1, 1 + with_memory, squeeze=False)[0]
    for name, color in zip(names, COLORS):
        panels[0].plot(x, [row.median for row in rows[name]], 'o-', color=color, label=name)
        if with_memory:
            panels[1].plot(x, [row.memory / MIB for row in rows[name]], 'o-', color=color)
    for panel, label in zip(panels, ('seconds', 'peak memory, MiB')):
        panel.set_xlabel(SWEPT[what])
        panel.set_ylabel(label)
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
        panel.spines[['top', 'right']].set_visible(False)
    figure.suptitle(mode)
    panels[0].legend(frameon=False)
    file = folder / f'{what}_{mode}.png'
    figure.savefig(file, dpi=150)
    return file
