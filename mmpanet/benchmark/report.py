# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a benchmark found: as tables on the terminal and in Markdown, as JSON, CSV and plots."""

import csv
import json
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Sequence

from .parts import OPTIMIZER, PARTS, REST
from .run import Benchmark, Row
from .subject import MODES, TRAINING

Table = List[List[str]]

MIB, MEGA, GIGA = 2**20, 1e6, 1e9
# Colours that stay apart for the colour-blind (Okabe and Ito), a part each.
COLORS = ('#0072B2', '#56B4E9', '#999999', '#E69F00', '#D55E00', '#F0E442', '#CC79A7', '#009E73', '#DDDDDD')
FOOTNOTE = (
    'Times are medians of rounds in which the models take turns; x is the median of the ratios of paired rounds to {}, '
    'with its 95 % bootstrap interval. A multiply-add is two FLOP; RoIAlign of any kind, norms, activations, NMS and '
    'losses are not counted. The NMS of the detections and the pasting of masks, the same for all, are left out.'
)


def text(benchmark: Benchmark) -> str:
    """Tables for a terminal."""
    return _document(benchmark, _plain)


def markdown(benchmark: Benchmark) -> str:
    """The same tables in Markdown."""
    return _document(benchmark, _markdown)


def write(benchmark: Benchmark, folder: Path) -> List[Path]:
    """benchmark.md, .json and .csv, and a plot of the parts for each mode."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ('benchmark.md', 'benchmark.json', 'benchmark.csv')}
    files['benchmark.md'].write_text(markdown(benchmark))
    files['benchmark.json'].write_text(json.dumps(as_dict(benchmark), indent=2) + '\n')
    with files['benchmark.csv'].open('w', newline='') as file:
        table = csv.DictWriter(file, _flat(benchmark.rows[0]), restval='')
        table.writeheader()
        table.writerows(_flat(row) for row in benchmark.rows)
    return [*files.values(), *_plots(benchmark, folder)]


def as_dict(benchmark: Benchmark) -> dict:
    """All that was measured; times in seconds, every round."""
    rows = [{**row._asdict(), 'ratio': row.ratio._asdict(), 'median': row.median} for row in benchmark.rows]
    return dict(
        workload=benchmark.workload._asdict(),
        setting=benchmark.setting._asdict(),
        environment=benchmark.environment,
        rows=rows,
    )


def _flat(row: Row) -> Dict[str, object]:
    return dict(
        mode=row.mode,
        model=row.name,
        seconds=row.median,
        ratio=row.ratio.median,
        ratio_low=row.ratio.low,
        ratio_high=row.ratio.high,
        rounds=len(row.seconds),
        parameters=row.parameters,
        flops=row.flops,
        memory=row.memory,
    )


def _document(benchmark: Benchmark, table: Callable[[Table], str]) -> str:
    workload, setting, environment = benchmark.workload, benchmark.setting, dict(benchmark.environment)
    options = [setting.dtype]
    if setting.rois_per_chunk:
        options.append(f'rois_per_chunk={setting.rois_per_chunk}')
    if setting.images:
        what = f'{len(setting.images)} images, {workload.batch} at a time, proposals and detections of each model'
    else:
        what = (
            f'{workload.batch} x {workload.height} x {workload.width}, {workload.rois} RoIs and '
            f'{workload.detections} detections an image, {workload.positives} positives in training'
        )
    paragraphs = [
        f'{what}; {", ".join(options)}',
        ', '.join([environment.pop('hardware'), *(f'{name} {version}' for name, version in environment.items())]),
    ]
    for mode in MODES:
        rows = benchmark.mode(mode)
        if rows:
            paragraphs += [table(_costs(mode, rows)), table(_parts(mode, rows))]
    paragraphs.append(FOOTNOTE.format(benchmark.rows[0].name))
    return '\n\n'.join(paragraphs) + '\n'


def _costs(mode: str, rows: Sequence[Row]) -> Table:
    """A line a model."""
    table = [[mode, 's', 'x', 'rounds', 'peak MiB', 'x', 'M parameters', 'GFLOP', 'x']]
    for row in rows:
        table.append(
            [
                row.name,
                f'{row.median:.3f}',
                str(row.ratio),
                str(len(row.seconds)),
                '-' if row.memory is None else f'{row.memory / MIB:.0f}',
                '-' if row.memory is None else f'{row.memory / rows[0].memory:.2f}',
                f'{row.parameters / MEGA:.1f}',
                _giga(row.flops),
                f'{row.flops / rows[0].flops:.2f}',
            ]
        )
    return table


def _parts(mode: str, rows: Sequence[Row]) -> Table:
    """A line a part, a column a model: seconds, and GFLOP in parentheses."""
    table = [[f'{mode}, s (GFLOP)', *(row.name for row in rows)]]
    for part in _part_names(rows):
        table.append(
            [part]
            + [f'{row.seconds_by_part.get(part, 0):.3f} ({_giga(row.flops_by_part.get(part, 0))})' for row in rows]
        )
    table.append(['sum'] + [f'{sum(row.seconds_by_part.values()):.3f} ({_giga(row.flops)})' for row in rows])
    return table


def _giga(count: float) -> str:
    return f'{count / GIGA:.{0 if count >= 100 * GIGA else 1}f}'


def _part_names(rows: Iterable[Row]) -> List[str]:
    found = {name for row in rows for name in row.seconds_by_part}
    known = [*PARTS.values(), *(f'{part}, backward' for part in reversed(PARTS.values())), OPTIMIZER, REST]
    return [name for name in known if name in found]


def _plain(table: Table) -> str:
    widths = [max(map(len, column)) for column in zip(*table)]
    return '\n'.join(
        '  '.join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))])
        for line in table
    )


def _markdown(table: Table) -> str:
    head, *body = ['| ' + ' | '.join(line) + ' |' for line in table]
    return '\n'.join([head, '|' + ' --- |' * len(table[0]), *body])


def _plots(benchmark: Benchmark, folder: Path) -> List[Path]:
    """Stacked bars: where each model's time goes."""
    from matplotlib.figure import Figure

    files = []
    for mode in MODES:
        rows = benchmark.mode(mode)
        if not rows:
            continue
        figure = Figure(figsize=(9, 1.4 + 0.5 * len(rows)), layout='constrained')
        axes = figure.subplots()
        names = [row.name for row in rows]
        left = [0.0] * len(rows)
        for part in _part_names(rows):
            widths = [row.seconds_by_part.get(part, 0) for row in rows]
            forward, _, backward = part.partition(', ')
            color = COLORS[[*PARTS.values(), OPTIMIZER, REST].index(forward)]
            axes.barh(
                names,
                widths,
                left=left,
                color=color,
                hatch='///' if backward else None,
                edgecolor='white',
                label=None if backward else part,
            )
            left = [a + b for a, b in zip(left, widths)]
        for i, row in enumerate(rows):
            axes.annotate(
                f'x {row.ratio.median:.2f}', (left[i], i), xytext=(4, 0), textcoords='offset points', va='center'
            )
        axes.invert_yaxis()
        axes.set_xlim(0, 1.1 * max(left))
        axes.set_xlabel('seconds' + (', backward hatched' if mode == TRAINING else ''))
        axes.set_title(f'{mode}, {benchmark.workload.batch} x {benchmark.workload.height} x {benchmark.workload.width}')
        axes.spines[['top', 'right']].set_visible(False)
        figure.legend(loc='outside lower center', ncols=5, frameon=False, fontsize='small')
        files.append(folder / f'{mode}.png')
        figure.savefig(files[-1], dpi=150)
    return files
