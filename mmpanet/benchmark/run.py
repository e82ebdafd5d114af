# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Two benchmarks: models side by side, and the same for several values of one number."""

import gc
from collections import defaultdict
from functools import partial
from statistics import median
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from mmpanet.utils.environment import environment_summary
from mmpanet.utils.errors import BenchmarkError, ConfigError
from mmpanet.utils.paired_times import Ratio, paired_ratio, time_in_turns
from .measure import flops_by_part, peak_memory, seconds_by_part
from .models import TRAINING, BenchmarkModel, PreparedModel, RunSettings, check_names
from .workload import Workload

# What run_sweep can change, and the label of the axis in its plot.
SWEEPABLE = {
    'rois': 'RoIs per image',
    'size': 'megapixels per image',
    'batch': 'images',
    'rois_per_chunk': 'RoIs per chunk',
}
SIZE_DIVISOR = 32  # of the models: other sizes would be padded
Progress = Callable[[str], None]


class ModelResult(NamedTuple):
    """One model in one mode."""

    name: str
    mode: str
    seconds: List[float]  # of each round
    ratio: Ratio  # to the seconds of the first model
    seconds_by_part: Dict[str, float]  # medians over rounds
    flops_by_part: Dict[str, int]
    parameters: int
    memory: Optional[int]  # bytes at the peak

    @property
    def median_seconds(self) -> float:
        return median(self.seconds)

    @property
    def flops(self) -> int:
        return sum(self.flops_by_part.values())


class Benchmark(NamedTuple):
    """All models in all modes, and what the figures depend on."""

    results: List[ModelResult]
    workload: Workload
    settings: RunSettings
    environment: Dict[str, str]  # see environment_summary()

    def of_mode(self, mode: str) -> List[ModelResult]:
        return [result for result in self.results if result.mode == mode]


def run_benchmark(
    models: Sequence[BenchmarkModel],
    modes: Sequence[str],
    workload: Workload,
    settings: RunSettings,
    rounds: int = 10,
    memory: bool = True,
    progress: Progress = lambda line: None,
) -> Benchmark:
    """Compare models on the same images, proposals and detections.

    Args:
        models: The others are compared with the first.
        modes: 'inference', 'training' or both.
        workload: What the models run on.
        settings: How they run.
        rounds: How many rounds each model is timed, see :func:`~mmpanet.utils.paired_times.time_in_turns`.
        memory: Whether the peak memory is measured, which takes one process per model and mode.
        progress: Called with one line per step.

    Raises:
        BenchmarkError: If two models have the same name, or if the counts of the workload do not fit each other.
    """
    check_names([model.name for model in models])
    if TRAINING in modes:
        workload.check_training()
    prepared = {}
    for model in models:
        progress(f'building {model.name}')
        prepared[model.name] = PreparedModel(model, workload, settings)
    results = [result for mode in modes for result in _measure_mode(prepared, mode, rounds, progress)]
    prepared.clear()
    gc.collect()
    if memory:
        by_name = {model.name: model for model in models}
        for i, result in enumerate(results):
            progress(f'{result.mode}, memory of {result.name}')
            try:
                peak = peak_memory(by_name[result.name], workload, settings, result.mode)
            except BenchmarkError as error:  # such as too little memory; the times stay
                progress(f'warning: {error}')
                continue
            results[i] = result._replace(memory=peak)
    return Benchmark(results, workload, settings, environment_summary(settings.device))


def _measure_mode(
    models: Dict[str, PreparedModel], mode: str, rounds: int, progress: Progress
) -> Iterator[ModelResult]:
    first = next(iter(models))
    runs = {name: partial(model.run, mode) for name, model in models.items()}
    times = time_in_turns(runs, rounds, models[first].device, lambda line: progress(f'{mode}, {line}'))
    # By part in rounds of their own: on a GPU, the measurement by part makes a run slower.
    by_part: Dict[str, Dict[str, List[float]]] = {name: defaultdict(list) for name in models}
    measurable = [name for name, model in models.items() if not model.is_compiled]
    part_rounds = max(1, rounds // 3)
    for i in range(part_rounds):
        progress(f'{mode}, by part, round {i + 1}/{part_rounds}')
        for name in [*measurable, *reversed(measurable)]:
            for part, seconds in seconds_by_part(models[name], mode).items():
                by_part[name][part].append(seconds)
    for name, model in models.items():
        progress(f'{mode}, FLOPs of {name}')
        yield ModelResult(
            name,
            mode,
            times[name],
            paired_ratio(times[name], times[first]),
            {part: median(seconds) for part, seconds in by_part[name].items()},
            flops_by_part(model, mode),
            model.count_parameters(),
            None,
        )


def run_sweep(
    swept: str,
    values: Sequence[int],
    models: Sequence[BenchmarkModel],
    modes: Sequence[str],
    workload: Workload,
    settings: RunSettings,
    rounds: int = 10,
    memory: bool = True,
    progress: Progress = lambda line: None,
) -> Iterator[Tuple[int, Benchmark]]:
    """Run the benchmark once per value.

    Args:
        swept: One of :data:`SWEEPABLE`. A ``size`` is the short edge, and must be a multiple of 32. The long edge is
            the multiple of 32 that comes closest to the aspect of the workload's images.
        values: In ascending order.
        models, modes, workload, settings, rounds, memory, progress: See :func:`run_benchmark`.

    Returns:
        Each value with its benchmark, as soon as it has been measured.
    """
    if swept == 'size' and any(value % SIZE_DIVISOR for value in values):
        raise ConfigError(f'--sweep size {" ".join(map(str, values))}: sizes must be multiples of {SIZE_DIVISOR}')
    if swept == 'rois' and TRAINING in modes:
        for value in values:
            workload._replace(rois=value).check_training()
    for value in values:
        changed_workload, changed_settings = workload, settings
        if swept == 'size':
            short = min(workload.height, workload.width)
            height, width = (
                round(edge * value / short / SIZE_DIVISOR) * SIZE_DIVISOR for edge in (workload.height, workload.width)
            )
            changed_workload = workload._replace(height=height, width=width)
        elif swept == 'rois_per_chunk':
            changed_settings = settings._replace(rois_per_chunk=value)
        else:
            changed_workload = workload._replace(**{swept: value})

        def tell(line: str, value: int = value) -> None:
            progress(f'{swept} {value}: {line}')

        yield value, run_benchmark(models, modes, changed_workload, changed_settings, rounds, memory, tell)
