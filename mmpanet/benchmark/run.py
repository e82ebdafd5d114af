# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Models side by side: times in turn, ratios to the first one, parts, arithmetic, memory."""

import gc
import platform
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import mmcv
import mmengine
import torch

import mmdet
from mmpanet.version import __version__
from .contenders import Contender
from .cost import parameters, peak_memory
from .measure import Ratio, interleave, paired_ratio
from .parts import flops_by_part, seconds_by_part
from .subject import Setting, Subject
from .workload import Workload

Progress = Callable[[str], None]


class Row(NamedTuple):
    """One model in one mode, beside the first model (the baseline)."""

    name: str
    mode: str
    seconds: List[float]  # a round
    ratio: Ratio
    seconds_by_part: Dict[str, float]  # medians
    flops_by_part: Dict[str, int]
    parameters: int
    memory: Optional[int]  # bytes at the peak

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def flops(self) -> int:
        return sum(self.flops_by_part.values())


class Benchmark(NamedTuple):
    """What :func:`run_benchmark` returns."""

    rows: List[Row]
    workload: Workload
    setting: Setting
    environment: Dict[str, str]

    def mode(self, mode: str) -> List[Row]:
        return [row for row in self.rows if row.mode == mode]


def run_benchmark(
    contenders: Sequence[Contender],
    modes: Sequence[str],
    workload: Workload,
    setting: Setting,
    rounds: int = 10,
    memory: bool = True,
    progress: Progress = lambda line: None,
) -> Benchmark:
    """Compare models on the same images, proposals and detections.

    Args:
        contenders: The models; the others are compared to the first.
        modes: 'inference', 'training' or both.
        workload: What they run on.
        setting: How they run.
        rounds: How often each is timed, there and back, see :func:`~.measure.interleave`.
        memory: Measure the peak of each in a process of its own.
        progress: Is told what is going on.

    Returns:
        Benchmark: A row a mode and model.
    """
    subjects = {}
    for contender in contenders:
        progress(f'building {contender.name}')
        subjects[contender.name] = Subject(contender, workload, setting)
    device = torch.device(setting.device)
    rows = []
    for mode in modes:
        functions = {name: _runner(subject, mode) for name, subject in subjects.items()}
        times = interleave(functions, rounds, device, progress=lambda line, mode=mode: progress(f'{mode}, {line}'))
        parts = _median_parts(subjects, mode, max(1, rounds // 3), progress)
        baseline = times[contenders[0].name]
        for contender in contenders:
            subject = subjects[contender.name]
            progress(f'{mode}, arithmetic of {contender.name}')
            rows.append(
                Row(
                    contender.name,
                    mode,
                    times[contender.name],
                    paired_ratio(times[contender.name], baseline),
                    parts[contender.name],
                    flops_by_part(subject, mode),
                    parameters(subject),
                    None,
                )
            )
    del subjects, subject, functions
    gc.collect()
    if memory:
        rows = [_with_memory(row, contenders, workload, setting, progress) for row in rows]
    return Benchmark(rows, workload, setting, environment(device))


def _runner(subject: Subject, mode: str) -> Callable[[], None]:
    return lambda: subject.run(mode)


def _median_parts(
    subjects: Dict[str, Subject], mode: str, rounds: int, progress: Progress
) -> Dict[str, Dict[str, float]]:
    """Of rounds of their own: on a GPU, taking a run apart makes it slower."""
    found: Dict[str, Dict[str, List[float]]] = {name: defaultdict(list) for name in subjects}
    for i in range(rounds):
        progress(f'{mode}, by part, round {i + 1}/{rounds}')
        for name in [*subjects, *reversed(subjects)]:
            for part, seconds in seconds_by_part(subjects[name], mode).items():
                found[name][part].append(seconds)
    return {name: {part: median(seconds) for part, seconds in parts.items()} for name, parts in found.items()}


def _with_memory(
    row: Row, contenders: Sequence[Contender], workload: Workload, setting: Setting, progress: Progress
) -> Row:
    progress(f'{row.mode}, memory of {row.name}')
    contender = next(contender for contender in contenders if contender.name == row.name)
    return row._replace(memory=peak_memory(contender, workload, setting, row.mode))


def environment(device: torch.device) -> Dict[str, str]:
    """Hardware and versions that a figure depends on."""
    versions = {'mmpanet': __version__, 'python': platform.python_version()}
    versions.update((module.__name__, module.__version__) for module in (torch, mmcv, mmengine, mmdet))
    if device.type == 'cuda':
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f'{_processor()}, {torch.get_num_threads()} threads'
    return {'hardware': hardware, **versions}


def _processor() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return f'{names[0]} ({torch.backends.cpu.get_cpu_capability()})' if names else platform.processor()
