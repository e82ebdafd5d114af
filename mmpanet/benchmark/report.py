# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a benchmark found, as text, Markdown, JSON, CSV and plots."""

import csv
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterable, List, Sequence, Tuple

from mmpanet.utils.files import atomic_write, make_folder, write_json, write_text
from mmpanet.utils.palette import (
    BLUE,
    GRAY,
    GREEN,
    LIGHT_BLUE,
    LIGHT_GRAY,
    ORANGE,
    PINK,
    VERMILION,
    YELLOW,
    line_styles,
)
from mmpanet.utils.plots import new_panels
from mmpanet.utils.tables import markdown_table, text_table
from .measure import OPTIMIZER, PARTS, REST
from .models import MODES, TRAINING
from .pooling import PoolingResult
from .run import SWEEPABLE, Benchmark, ModelResult
from .workload import Workload

Rows = List[List[str]]
WriteTable = Callable[[Rows, List[str]], str]

MIB, MEGA, GIGA = 2**20, 1e6, 1e9
PART_COLORS = dict(
    zip(
        (*PARTS.values(), OPTIMIZER, REST), (BLUE, LIGHT_BLUE, GRAY, ORANGE, VERMILION, YELLOW, PINK, GREEN, LIGHT_GRAY)
    )
)
FOOTNOTE = (
    'Times are medians of rounds in which the models take turns. x is the median of the ratios of paired rounds to {}, '
    'with its 95 % interval from a bootstrap over rounds; of five rounds or fewer this is the smallest and the largest '
    'ratio. A multiply-add is two FLOP; RoIAlign of any kind, norms, activations, NMS and '
    'losses are not counted.'
)
LEFT_OUT = ' The NMS of the detections and the pasting of masks, the same for all, are left out.'


def as_text(benchmark: Benchmark) -> str:
    """Tables for a terminal."""
    return _document(benchmark, text_table)


def as_markdown(benchmark: Benchmark) -> str:
    """The same tables in Markdown."""
    return _document(benchmark, lambda rows, headers: markdown_table(rows, headers).rstrip('\n'))


def as_dict(benchmark: Benchmark) -> Dict[str, Any]:
    """Everything that was measured. Times are in seconds, one per round."""
    results = [
        {**result._asdict(), 'ratio': result.ratio._asdict(), 'median': result.median_seconds}
        for result in benchmark.results
    ]
    return dict(
        workload=benchmark.workload._asdict(),
        setting=benchmark.settings._asdict(),
        environment=benchmark.environment,
        rows=results,
    )


def write_benchmark(benchmark: Benchmark, folder: Path) -> List[Path]:
    """Write benchmark.md, .json and .csv, and one plot per mode of the time of each part."""
    make_folder(folder, '--out')
    markdown, data, table = (folder / f'benchmark.{suffix}' for suffix in ('md', 'json', 'csv'))
    write_text(markdown, as_markdown(benchmark))
    write_json(data, as_dict(benchmark))
    with atomic_write(table) as part, part.open('w', newline='') as file:
        writer = csv.DictWriter(file, _csv_row(benchmark.results[0]), restval='')
        writer.writeheader()
        writer.writerows(_csv_row(result) for result in benchmark.results)
    return [markdown, data, table, *_plot_parts(benchmark, folder)]


def write_sweep(swept: str, benchmarks: Sequence[Tuple[int, Benchmark]], folder: Path) -> List[Path]:
    """Write ``swept``.json, and one plot per mode of time and memory over the swept value.

    Args:
        swept: What was changed, one of :data:`~.run.SWEEPABLE`.
        benchmarks: What :func:`~.run.run_sweep` yields.
        folder: Where the files go.
    """
    make_folder(folder, '--out')
    data = folder / f'{swept}.json'
    write_json(data, [dict(value=value, **as_dict(one)) for value, one in benchmarks], indent=None)
    modes = [mode for mode in MODES if benchmarks[0][1].of_mode(mode)]
    return [data, *(_plot_sweep(swept, mode, benchmarks, folder) for mode in modes)]


def pooling_text(
    results: Sequence[PoolingResult],
    workload: Workload,
    output_size: int,
    channels: int,
    sampling_ratio: int,
    environment: Dict[str, str],
) -> str:
    """The comparison of the pooling ops for a terminal."""
    rows = []
    for result in results:
        mmcv, mmpanet = (f'{median(seconds):.3f}' for seconds in (result.mmcv_seconds, result.mmpanet_seconds))
        difference = f'{result.difference:.1e} of {result.magnitude:.1f}'
        rows.append([result.form, result.direction, mmcv, mmpanet, str(result.speedup), difference])
    sizes = (
        f'{workload.batch} x {workload.height} x {workload.width}, {workload.batch * workload.rois} RoIs, '
        f'{output_size} x {output_size}, {channels} channels, sampling_ratio={sampling_ratio}'
    )
    headers = ['each RoI from', 'direction', 'mmcv, s', 'mmpanet, s', 'times as fast', 'largest difference']
    return '\n'.join([_one_line(environment), sizes, text_table(rows, headers)])


def _csv_row(result: ModelResult) -> Dict[str, object]:
    return dict(
        mode=result.mode,
        model=result.name,
        seconds=result.median_seconds,
        ratio=result.ratio.median,
        ratio_low=result.ratio.low,
        ratio_high=result.ratio.high,
        rounds=len(result.seconds),
        parameters=result.parameters,
        flops=result.flops,
        memory=result.memory,
    )


def _document(benchmark: Benchmark, write_table: WriteTable) -> str:
    workload, settings = benchmark.workload, benchmark.settings
    options = [settings.dtype]
    if settings.rois_per_chunk:
        options.append(f'rois_per_chunk={settings.rois_per_chunk}')
    if settings.images:
        work = (
            f'{len(settings.images)} images, {workload.batch} per batch, each model on its own proposals and detections'
        )
    else:
        work = (
            f'{workload.batch} x {workload.height} x {workload.width}, {workload.rois} RoIs and '
            f'{workload.detections} detections per image, {workload.positives} positives in training'
        )
    paragraphs = [f'{work}; {", ".join(options)}', _one_line(benchmark.environment)]
    for mode in MODES:
        results = benchmark.of_mode(mode)
        if results:
            paragraphs.append(_cost_table(mode, results, write_table))
            if any(one.seconds_by_part for one in results):
                paragraphs.append(_part_table(mode, results, write_table))
    # With images of the user the models make detections of their own.
    paragraphs.append(FOOTNOTE.format(benchmark.results[0].name) + ('' if settings.images else LEFT_OUT))
    return '\n\n'.join(paragraphs) + '\n'


def _one_line(environment: Dict[str, str]) -> str:
    versions = [f'{name} {version}' for name, version in environment.items() if name != 'hardware']
    return ', '.join([environment['hardware'], *versions])


def _cost_table(mode: str, results: Sequence[ModelResult], write_table: WriteTable) -> str:
    """One row per model."""
    first = results[0]
    rows = []
    for result in results:
        memory = ['-', '-']
        if result.memory is not None and first.memory is not None:
            memory = [f'{result.memory / MIB:.0f}', f'{result.memory / first.memory:.2f}']
        flops = [_in_giga(result.flops), f'{result.flops / first.flops:.2f}'] if first.flops else ['-', '-']
        rows.append(
            [
                result.name,
                f'{result.median_seconds:.3f}',
                str(result.ratio),
                str(len(result.seconds)),
                *memory,
                f'{result.parameters / MEGA:.1f}',
                *flops,
            ]
        )
    return write_table(rows, [mode, 's', 'x', 'rounds', 'peak MiB', 'x', 'M parameters', 'GFLOP', 'x'])


def _part_table(mode: str, results: Sequence[ModelResult], write_table: WriteTable) -> str:
    """One row per part and one column per model: seconds, and GFLOP in parentheses. Compiled models are left out."""
    results = [one for one in results if one.seconds_by_part]
    rows = [
        [part]
        + [f'{one.seconds_by_part.get(part, 0):.3f} ({_in_giga(one.flops_by_part.get(part, 0))})' for one in results]
        for part in _parts_in_order(results)
    ]
    rows.append(['sum'] + [f'{sum(one.seconds_by_part.values()):.3f} ({_in_giga(one.flops)})' for one in results])
    return write_table(rows, [f'{mode}, s (GFLOP)', *(result.name for result in results)])


def _in_giga(count: float) -> str:
    return f'{count / GIGA:.{0 if count >= 100 * GIGA else 1}f}'


def _parts_in_order(results: Iterable[ModelResult]) -> List[str]:
    found = {name for result in results for name in result.seconds_by_part}
    known = [*PARTS.values(), *(f'{part}, backward' for part in reversed(list(PARTS.values()))), OPTIMIZER, REST]
    return [name for name in known if name in found]


def _plot_parts(benchmark: Benchmark, folder: Path) -> List[Path]:
    """Stacked bars of the seconds of each part, one bar per model and one plot per mode; none of compiled models."""
    files = []
    for mode in MODES:
        results = [one for one in benchmark.of_mode(mode) if one.seconds_by_part]
        if not results:
            continue
        figure, [axes] = new_panels(1, (9, 1.4 + 0.5 * len(results)))
        names = [result.name for result in results]
        ends = [0.0] * len(results)
        for part in _parts_in_order(results):
            widths = [result.seconds_by_part.get(part, 0) for result in results]
            forward_part, _, backward = part.partition(', ')
            axes.barh(
                names,
                widths,
                left=ends,
                color=PART_COLORS[forward_part],
                hatch='///' if backward else None,
                edgecolor='white',
                label=None if backward else part,
            )
            ends = [end + width for end, width in zip(ends, widths)]
        for i, result in enumerate(results):
            ratio = f'x {result.ratio.median:.2f}'
            axes.annotate(ratio, (ends[i], i), xytext=(4, 0), textcoords='offset points', va='center')
        axes.invert_yaxis()
        axes.set_xlim(0, 1.1 * max(ends))
        axes.set_xlabel('seconds' + (', backward hatched' if mode == TRAINING else ''))
        size = f'{benchmark.workload.height} x {benchmark.workload.width}'
        images = benchmark.settings.images
        axes.set_title(f'{mode}, {len(images)} images' if images else f'{mode}, {benchmark.workload.batch} x {size}')
        figure.legend(loc='outside lower center', ncols=5, frameon=False, fontsize='small')
        files.append(folder / f'{mode}.png')
        figure.savefig(files[-1])
    return files


def _plot_sweep(swept: str, mode: str, benchmarks: Sequence[Tuple[int, Benchmark]], folder: Path) -> Path:
    """Seconds, and peak memory if it was measured, over the swept value: one line per model."""
    x = [one.workload.height * one.workload.width / 1e6 if swept == 'size' else value for value, one in benchmarks]
    lines = list(zip(*(one.of_mode(mode) for _, one in benchmarks)))  # the results of one model at all values
    with_memory = all(result.memory is not None for line in lines for result in line)
    figure, panels = new_panels(1 + with_memory, (5 * (1 + with_memory), 3.6))
    for line, style in zip(lines, line_styles(len(lines))):
        panels[0].plot(x, [result.median_seconds for result in line], marker='o', **style, label=line[0].name)
        if with_memory:
            panels[1].plot(x, [(result.memory or 0) / MIB for result in line], marker='o', **style)
    for panel, label in zip(panels, ('seconds', 'peak memory, MiB')):
        panel.set_xlabel(SWEEPABLE[swept])
        panel.set_ylabel(label)
        panel.set_ylim(0, 1.08 * panel.get_ylim()[1])
    figure.suptitle(mode)
    panels[0].legend(frameon=False)
    file = folder / f'{swept}_{mode}.png'
    figure.savefig(file)
    return file
