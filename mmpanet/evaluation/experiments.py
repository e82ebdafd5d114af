# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Train several configs with several seeds, one after another, and keep the results."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple
from urllib.parse import quote

from filelock import FileLock, Timeout

from mmpanet.utils.configs import load_config
from mmpanet.utils.environment import commit, environment_summary
from mmpanet.utils.errors import ConfigError, DataError, MMPanetError
from mmpanet.utils.files import write_text
from mmpanet.utils.model_building import build_model
from .coco_metrics import MAIN_METRICS
from .run_log import RunLog, total_seconds

Progress = Callable[[str], None]
NOTE_OF_CONFIG = 'config.txt'
LONGEST_NAME = 200  # characters of a folder; most file systems take 255
RunKey = Tuple[str, Tuple[str, ...], int]  # name, overrides, seed


class Run(NamedTuple):
    """One training: a config, a seed, and overrides of the config."""

    config: Path
    seed: int
    options: Tuple[str, ...] = ()  # KEY=VALUE

    @property
    def name(self) -> str:
        return self.config.stem

    def __str__(self) -> str:
        return ' '.join([f'{self.name}, seed {self.seed}', *self.options])

    def work_dir(self, parent: Path) -> Path:
        """A folder for this run alone, because a run goes on from the checkpoint that it finds in its folder."""
        return parent.joinpath(self.name, *([self._options_as_name()] if self.options else []), f'seed_{self.seed}')

    def _options_as_name(self) -> str:
        name = quote(' '.join(self.options), '=,')
        if len(name) <= LONGEST_NAME:
            return name
        return f'{name[: LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}'


class Launcher(NamedTuple):
    """How a training is started: in one process, on several GPUs, or on a cluster."""

    kind: str = 'none'  # or 'pytorch', or 'slurm'
    gpus: int = 1
    partition: str = ''
    tools: Path = Path('tools')  # the folder of train.py, dist_train.sh and slurm_train.sh

    def command(self, run: Run, work_dir: Path) -> List[str]:
        """The command of a training, which goes on where an earlier one was cut off."""
        config, folder = str(run.config), str(work_dir)
        if self.kind == 'pytorch':
            start = ['bash', str(self.tools / 'dist_train.sh'), config, str(self.gpus), '--work-dir', folder]
        elif self.kind == 'slurm':
            start = ['bash', str(self.tools / 'slurm_train.sh'), self.partition, run.name, config, folder]
        else:
            start = [sys.executable, str(self.tools / 'train.py'), config, '--work-dir', folder]
        return start + ['--cfg-options', f'randomness.seed={run.seed}', *run.options, '--resume']


class Results:
    """A file with one JSON object per run. Lines are only added to it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __iter__(self) -> Iterator[Dict[str, Any]]:
        """The last result of each run: the same config, overrides and seed.

        Raises:
            DataError: If a line is not a result.
        """
        lines = self.file.read_text(encoding='utf-8').splitlines() if self.file.exists() else []
        latest: Dict[RunKey, Dict[str, Any]] = {}
        for number, line in enumerate(lines, start=1):
            try:
                result = json.loads(line)
                latest[_run_key(result)] = result
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(f'{self.file}, line {number} is not the result of a run: {line[:80]!r}') from error
        return iter(latest.values())

    def add(self, result: Dict[str, Any]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # The last line of a file that was edited or copied may have no end.
        content = self.file.read_bytes() if self.file.exists() else b''
        start = '\n' if content and not content.endswith(b'\n') else ''
        with self.file.open('a', encoding='utf-8') as file:
            file.write(start + json.dumps(result) + '\n')

    def finished(self) -> List[RunKey]:
        return [_run_key(result) for result in self if 'metrics' in result]


def _run_key(result: Dict[str, Any]) -> RunKey:
    return result['name'], tuple(result.get('options', ())), result['seed']


def plan_runs(
    configs: Sequence[Path], seeds: Sequence[int], results: Results, options: Sequence[str] = ()
) -> List[Run]:
    """The runs that have not finished yet. All configs come with the first seed first, so early results compare them.

    Args:
        configs: Paths of the configs.
        seeds: Seeds for each config.
        results: Runs that have finished.
        options: Overrides for all configs, as ``KEY=VALUE``. The same config with other overrides is another run.

    Raises:
        ConfigError: If a config does not exist, two configs have the same name, or an override has no value. Also if
            the results hold a run of another config with one of these names.
    """
    bare = [option for option in options if '=' not in option]
    if bare:
        raise ConfigError(f'--cfg-options {bare[0]}: is not KEY=VALUE')
    missing = [str(config) for config in configs if not config.is_file()]
    if missing:
        raise ConfigError(f'there is no config {", ".join(missing)}')
    names = [config.stem for config in configs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f'two configs are named {twice[0]}, and results are kept by that name')
    by_name = {config.stem: config for config in configs}
    for result in results:
        config = by_name.get(result['name'])
        if config and not _are_one(config, Path(result.get('config', config))):
            raise ConfigError(
                f'{results.file} holds a run of {result["config"]}, and {config} has the same name; choose other '
                '--results for it'
            )
    finished = results.finished()
    runs = [Run(config, seed, tuple(options)) for seed in dict.fromkeys(seeds) for config in configs]
    return [run for run in runs if (run.name, run.options, run.seed) not in finished]


def _are_one(config: Path, other: Path) -> bool:
    """Whether two paths may be those of one config, seen from different folders: name and folder decide."""
    ends = [[part for part in Path(os.path.normpath(one)).parts if part != '..'][-2:] for one in (config, other)]
    shared = min(map(len, ends))
    return ends[0][-shared:] == ends[1][-shared:]


def _digest(config: Path) -> str:
    """A number of the settings of a config, or an empty string if it cannot be read, as the training will say."""
    try:
        settings = load_config(config).to_dict()
    except MMPanetError:
        return ''
    text = json.dumps(settings, skipkeys=True, default=lambda value: getattr(value, '__qualname__', str(type(value))))
    return hashlib.sha256(text.encode()).hexdigest()


def _claim(folder: Path, run: Run) -> None:
    """Note in a work folder which config is trained there, and refuse the folder of another one."""
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / NOTE_OF_CONFIG
    digest = _digest(run.config)
    if not note.is_file():
        write_text(note, f'{os.path.abspath(run.config)}\n{digest}\n')
        return
    other, *trained = note.read_text(encoding='utf-8').split('\n')
    if not _are_one(run.config, Path(other)):
        raise ConfigError(
            f'{folder} holds a training of {other}, and {run.config} has the same name; choose another --work-dir'
        )
    if not digest or digest in trained:
        return
    if any(trained) and any(folder.glob('*.pth')):
        raise ConfigError(
            f'{folder} holds a training of {run.config} with other settings: the config was changed; choose another '
            '--work-dir, or remove the folder'
        )
    # Nothing of other settings is there to go on with, or the note is of before notes had settings.
    write_text(note, f'{other}\n{digest}\n')


def run_all(
    runs: Sequence[Run], results: Results, work_dir: Path, launcher: Launcher, progress: Progress = print
) -> int:
    """Train and evaluate. A run that fails is recorded with the last line of its log, and the next one begins.

    A run that another process is training in the same folder is left out, and counts as failed. So does a run whose
    folder holds a training of another config with the same name.

    Args:
        runs: From :func:`plan_runs`.
        results: Where the runs are recorded.
        work_dir: Gets one folder per run, with mmengine's logs and checkpoints.
        launcher: How a training is started.
        progress: Called with one line per step.

    Returns:
        The number of runs that failed.
    """
    failures = 0
    for number, run in enumerate(runs, start=1):
        progress(f'{number}/{len(runs)} {run}')
        folder = run.work_dir(work_dir)
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Two trainings in one folder would overwrite each other's checkpoints and be read as one.
            with FileLock(f'{folder}.lock', timeout=0):
                _claim(folder, run)
                result = train_once(run, folder, launcher)
        except (Timeout, ConfigError) as error:
            failures += 1
            reason = error if isinstance(error, ConfigError) else f'another process trains in {folder}'
            progress(f'  left out: {reason}')
            continue
        results.add(result)
        if 'metrics' in result:
            shown = {key: value for key, value in result['metrics'].items() if key.endswith('_mAP')}
            progress(f'  {shown}, {result["seconds"] / 60:.1f} min')
        else:
            failures += 1
            progress(f'  failed: {result["error"]}')
    return failures


def train_once(run: Run, work_dir: Path, launcher: Launcher) -> Dict[str, Any]:
    """Do one run. Returns its line of the results; its time includes earlier starts that were cut off."""
    log = work_dir / 'output.log'
    before, started = total_seconds(work_dir), time.time()
    with log.open('a') as file:
        process = subprocess.run(
            launcher.command(run, work_dir),
            stdout=file,
            stderr=subprocess.STDOUT,
            # The scripts of launchers start the `python` of the PATH.
            env={
                **os.environ,
                'PYTHONUNBUFFERED': '1',
                'PATH': os.pathsep.join([os.path.dirname(sys.executable), os.environ.get('PATH', os.defpath)]),
            },
        )
    environment = environment_summary()
    result: Dict[str, Any] = dict(
        name=run.name,
        config=run.config.as_posix(),
        options=list(run.options),
        seed=run.seed,
        seconds=round(before + time.time() - started, 1),
        commit=commit(Path.cwd()),
        hardware=environment.pop('hardware'),
        versions=environment,
    )
    try:
        if process.returncode:
            raise DataError(_last_line(log) or f'exit status {process.returncode}')
        return {**result, **measurements(work_dir), 'parameters': count_parameters(work_dir / run.config.name)}
    except MMPanetError as error:
        return {**result, 'error': str(error)}


def measurements(work_dir: Path) -> Dict[str, Any]:
    """What the logs of a work folder say: the metrics of the last evaluation (fractions), box and mask AP of all
    evaluations, the number of iterations, and the median of seconds per step.

    Raises:
        DataError: If there is no evaluation.
    """
    log = RunLog.read(work_dir)
    if not log.evaluations:
        raise DataError(f'{work_dir} has no evaluation with COCO metrics')
    return dict(
        metrics=log.evaluations[-1].metrics,
        curve=[dict(epoch=one.epoch, iteration=one.iteration, **_main_metrics(one.metrics)) for one in log.evaluations],
        iterations=max((int(step['iter']) for step in log.steps), default=0),
        seconds_a_step=log.seconds_per_step,
    )


def _main_metrics(metrics: Dict[str, float]) -> Dict[str, float]:
    return {key: metrics[key] for key in MAIN_METRICS if key in metrics}


def count_parameters(config: Path) -> int:
    """The number of parameters of a config's model."""
    return sum(parameter.numel() for parameter in build_model(load_config(config)).parameters())


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return lines[-1][:300] if lines else ''
