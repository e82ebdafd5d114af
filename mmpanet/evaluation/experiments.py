# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Train several configs over several seeds, one after another, and keep what came out."""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple
from urllib.parse import quote

import mmcv
import mmengine
import torch
from mmengine.config import Config

import mmdet
from mmpanet.version import __version__
from .run_log import RunLog

Progress = Callable[[str], None]


class ExperimentError(ValueError):
    """Something that the user can put right; the message says what."""


class Run(NamedTuple):
    """One config with one seed, and with overrides if some are tried."""

    config: Path
    seed: int
    options: Tuple[str, ...] = ()  # KEY=VALUE

    @property
    def name(self) -> str:
        return self.config.stem

    def __str__(self) -> str:
        return ' '.join([f'{self.name}, seed {self.seed}', *self.options])

    def work_dir(self, parent: Path) -> Path:
        """One of its own, as a run goes on from the checkpoint that it finds there."""
        return parent.joinpath(
            self.name, *([quote(' '.join(self.options), '=,')] if self.options else []), f'seed_{self.seed}'
        )


class Launcher(NamedTuple):
    """How a training is started: in this process's place, on several GPUs, or on a cluster."""

    kind: str = 'none'  # or 'pytorch', 'slurm'
    gpus: int = 1
    partition: str = ''
    tools: Path = Path('tools')  # where train.py, dist_train.sh and slurm_train.sh are

    def command(self, run: Run, work_dir: Path) -> List[str]:
        """Of a training that goes on where an earlier one was cut off."""
        config, folder = str(run.config), str(work_dir)
        if self.kind == 'pytorch':
            start = ['bash', str(self.tools / 'dist_train.sh'), config, str(self.gpus), '--work-dir', folder]
        elif self.kind == 'slurm':
            start = ['bash', str(self.tools / 'slurm_train.sh'), self.partition, run.name, config, folder]
        else:
            start = [sys.executable, str(self.tools / 'train.py'), config, '--work-dir', folder]
        return start + ['--cfg-options', f'randomness.seed={run.seed}', *run.options, '--resume']


class Results:
    """A file of one JSON object a run, which is only ever added to."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __iter__(self) -> Iterator[dict]:
        """The last result of every config, with every choice of overrides, and seed.

        Raises:
            ExperimentError: If a line is no result.
        """
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        latest: Dict[tuple, dict] = {}
        for number, line in enumerate(lines, start=1):
            try:
                result = json.loads(line)
                latest[_key(result)] = result
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ExperimentError(
                    f'{self.file}, line {number} is not the result of a run: {line[:80]!r}'
                ) from error
        return iter(latest.values())

    def add(self, result: dict) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open('a') as file:
            file.write(json.dumps(result) + '\n')

    def finished(self) -> List[tuple]:
        return [_key(result) for result in self if 'metrics' in result]


def _key(result: dict) -> tuple:
    return result['name'], tuple(result.get('options', ())), result['seed']


def plan(configs: Sequence[Path], seeds: Sequence[int], results: Results, options: Sequence[str] = ()) -> List[Run]:
    """The runs that are still to be done, seed by seed, so that early results compare all configs.

    Args:
        configs: Their paths.
        seeds: Of every config.
        results: What has been done.
        options: Overrides for all configs, as ``KEY=VALUE``; a config with other ones is another experiment.

    Raises:
        ExperimentError: If a config is not there, two have one name, or an override has no value.
    """
    bare = [option for option in options if '=' not in option]
    if bare:
        raise ExperimentError(f'--cfg-options {bare[0]}: is not KEY=VALUE')
    missing = [str(config) for config in configs if not config.is_file()]
    if missing:
        raise ExperimentError(f'there is no config {", ".join(missing)}')
    names = [config.stem for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ExperimentError(f'two configs are named {twice[0]}: results are kept by that name')
    finished = results.finished()
    runs = [Run(config, seed, tuple(options)) for seed in seeds for config in configs]
    return [run for run in runs if (run.name, run.options, run.seed) not in finished]


def run_all(
    runs: Sequence[Run], results: Results, work_dir: Path, launcher: Launcher, progress: Progress = print
) -> int:
    """Train and evaluate; a run that fails is recorded with the end of its log, and the next one begins.

    Args:
        runs: From :func:`plan`.
        results: Where they are recorded.
        work_dir: A folder a run is made in it, with mmengine's logs and checkpoints.
        launcher: How a training is started.
        progress: Is told what is going on.

    Returns:
        How many failed.
    """
    failures = 0
    for number, run in enumerate(runs, start=1):
        progress(f'{number}/{len(runs)} {run}')
        result = train(run, run.work_dir(work_dir), launcher)
        results.add(result)
        if 'metrics' in result:
            shown = {key: value for key, value in result['metrics'].items() if key.endswith('_mAP')}
            progress(f'  {shown}, {result["seconds"] / 60:.1f} min')
        else:
            failures += 1
            progress(f'  failed: {result["error"]}')
    return failures


def train(run: Run, work_dir: Path, launcher: Launcher) -> dict:
    """One run, and its line of the results; its time is that of all its starts, if it was cut off."""
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'output.log'
    before, started = RunLog.seconds(work_dir), time.time()
    with log.open('a') as file:
        process = subprocess.run(
            launcher.command(run, work_dir),
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHONUNBUFFERED': '1'},
        )
    result = dict(
        name=run.name,
        config=run.config.as_posix(),
        options=list(run.options),
        seed=run.seed,
        seconds=round(before + time.time() - started, 1),
        **origin(),
    )
    try:
        if process.returncode:
            raise ExperimentError(_last_line(log) or f'exit status {process.returncode}')
        return {**result, **evaluation(work_dir), 'parameters': parameters(work_dir / run.config.name)}
    except ExperimentError as error:
        return {**result, 'error': str(error)}


def evaluation(work_dir: Path) -> dict:
    """The last evaluation of a work folder: metrics (fractions), iterations, and seconds a step (the median).

    Raises:
        ExperimentError: If there is none.
    """
    log = RunLog.read(work_dir)
    if not log.evaluations:
        raise ExperimentError(f'{work_dir} has no evaluation with COCO metrics')
    iterations = max((int(step['iter']) for step in log.steps), default=0)
    return dict(metrics=log.evaluations[-1].metrics, iterations=iterations, seconds_a_step=log.seconds_a_step)


def parameters(config: Path) -> int:
    """Of the model of a config, in numbers."""
    from mmpanet.utils.model_building import build_model

    return sum(parameter.numel() for parameter in build_model(Config.fromfile(config)).parameters())


def origin() -> dict:
    """The commit, the versions and the hardware."""
    if torch.cuda.is_available():
        hardware = f'{torch.cuda.device_count()} x {torch.cuda.get_device_name()}'
    else:
        hardware = f'{os.cpu_count()} CPU cores, {os.environ.get("OMP_NUM_THREADS", "all")} threads a run'
    versions = {module.__name__: module.__version__ for module in (torch, mmcv, mmengine, mmdet)}
    return dict(
        commit=_commit(),
        hardware=hardware,
        versions={'mmpanet': __version__, 'python': platform.python_version(), **versions},
    )


def _commit() -> Optional[str]:
    """Of the checkout that the command runs in, marked if its tracked files were changed."""
    try:
        commit, changes = (
            subprocess.run(['git', *command], capture_output=True, text=True, check=True).stdout.strip()
            for command in (['rev-parse', '--short', 'HEAD'], ['status', '--porcelain', '-uno'])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ('+changes' if changes else '')


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return lines[-1][:300] if lines else ''
