# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""AP and time of trained two-stage detectors over the number of proposals."""

from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmpanet.engine.run_config import check_run_config
from mmpanet.engine.runner import CheckingRunner
from mmpanet.utils.environment import environment_summary
from mmpanet.utils.errors import ConfigError
from mmpanet.utils.files import atomic_write, make_folder, write_json, write_text
from mmpanet.utils.paired_times import Ratio, now, paired_ratio
from mmpanet.utils.palette import line_styles
from mmpanet.utils.plots import new_panels
from mmpanet.utils.tables import markdown_table
from .coco_metrics import MAIN_METRICS, metric_titles, percent
from .run_log import coco_metrics_in

Progress = Callable[[str], None]


class SweepPoint(NamedTuple):
    """One model with one number of proposals."""

    model: str
    proposals: int  # at most, per image
    metrics: Dict[str, float]  # such as 'segm_mAP', from 0 to 1
    seconds: List[float]  # per batch of the test data, with pre- and post-processing and without loading
    ratio: Ratio  # of the seconds to those of the first model with the most proposals


def sweep_proposals(
    models: Mapping[str, Config], numbers: Sequence[int], progress: Progress = lambda line: None
) -> List[SweepPoint]:
    """Test models with several numbers of proposals, side by side.

    Every batch of the test data goes through all models with all numbers before the next batch does, in turns (A B C,
    C B A), so that a machine that becomes slower changes all times alike. ``rpn.nms_pre`` is raised to the largest
    number if it is smaller.

    Args:
        models: Configs by name. Their ``load_from`` names the checkpoints, and all have the same test data.
        numbers: Values of ``model.test_cfg.rpn.max_per_img``.
        progress: Called with one line per 10 batches.

    Returns:
        The points, model by model in the order of ``models``, from the smallest number to the largest.

    Raises:
        ConfigError: If a model has no RPN, or the test data differ.
        CheckpointError: If a checkpoint does not belong to its config.
        DataError: If the annotations are not what a config says.
    """
    numbers = sorted(set(numbers))
    runners = {name: _prepare(cfg, numbers[-1]) for name, cfg in models.items()}
    first = next(iter(models))
    loaders = {name: runner.test_loop.dataloader for name, runner in runners.items()}
    sizes = {name: len(loader.dataset) for name, loader in loaders.items()}
    if len(set(sizes.values())) > 1:
        raise ConfigError('test_dataloader: the models are tested on different data: ' + _listed(sizes))
    turns = [(name, number) for name in models for number in numbers]
    evaluators = {turn: _evaluator(runners[turn[0]]) for turn in turns}
    seconds: Dict[Tuple[str, int], List[float]] = {turn: [] for turn in turns}
    for index, batches in enumerate(zip(*loaders.values())):
        data = dict(zip(models, batches))
        paths = {name: [sample.img_path for sample in batch['data_samples']] for name, batch in data.items()}
        if any(one != paths[first] for one in paths.values()):
            raise ConfigError('test_dataloader: the models are tested on different images: ' + _listed(paths))
        for name, number in turns if index % 2 else reversed(turns):
            outputs, taken = _predict(runners[name], number, data[name])
            seconds[name, number].append(taken)
            evaluators[name, number].process(outputs, data[name])
        if index % 10 == 9:
            progress(f'{index + 1} of {len(loaders[first])} batches')
    points = []
    for name, number in turns:
        metrics = evaluators[name, number].evaluate(sizes[name])
        points.append(
            SweepPoint(
                name,
                number,
                coco_metrics_in(metrics),
                seconds[name, number],
                paired_ratio(seconds[name, number], seconds[first, numbers[-1]]),
            )
        )
    return points


def _prepare(cfg: Config, most: int) -> Runner:
    """The runner of a config with its model in evaluation mode and its weights loaded."""
    check_run_config(cfg, 'test')
    rpn = (cfg.model.get('test_cfg') or {}).get('rpn')
    if not rpn or not cfg.model.get('rpn_head'):
        raise ConfigError(f'model.rpn_head: {cfg.load_from} is of a {cfg.model.type}, which has no proposals')
    if rpn.get('nms_pre', -1) > 0:  # otherwise there is no limit
        rpn.nms_pre = max(rpn.nms_pre, most)
    runner = CheckingRunner.from_cfg(cfg)
    _ = runner.test_loop  # it is built here, which checks the data
    runner.load_or_resume()
    runner.model.eval()
    return runner


def _evaluator(runner: Runner) -> Evaluator:
    evaluator = runner.build_evaluator(runner.cfg.test_evaluator)
    evaluator.dataset_meta = runner.test_loop.dataloader.dataset.metainfo
    return evaluator


@torch.no_grad()
def _predict(runner: Runner, number: int, data: Dict[str, Any]) -> Tuple[List[Any], float]:
    runner.model.rpn_head.test_cfg.max_per_img = number
    device = next(runner.model.parameters()).device
    start = now(device)
    outputs = runner.model.test_step(data)
    return outputs, now(device) - start


def _listed(values: Mapping[str, object]) -> str:
    return ', '.join(f'{name}: {value}' for name, value in values.items())


def sweep_table(points: Sequence[SweepPoint]) -> str:
    """A table in Markdown, one row per point."""
    titles = metric_titles(MAIN_METRICS)
    return markdown_table(
        [
            [
                point.model,
                point.proposals,
                *(percent(point.metrics[metric]) if metric in point.metrics else '-' for metric in titles),
                f'{median(point.seconds):.3f}',
                point.ratio,
            ]
            for point in points
        ],
        ['model', 'proposals', *titles.values(), 's', 'x'],
    )


def write_sweep(points: Sequence[SweepPoint], folder: Path) -> Iterator[Path]:
    """Write ``proposals.md``, ``proposals.json`` and ``proposals.png`` into a folder, and yield their paths.

    Without any metric there is no picture.
    """
    make_folder(folder, '--out-dir')
    content = dict(environment=environment_summary(), points=[one._asdict() for one in points])
    write_text(folder / 'proposals.md', sweep_table(points))
    yield folder / 'proposals.md'
    write_json(folder / 'proposals.json', content)
    yield folder / 'proposals.json'
    if any(metric in one.metrics for one in points for metric in MAIN_METRICS):
        with atomic_write(folder / 'proposals.png') as part:
            plot_sweep(points, part)
        yield folder / 'proposals.png'


def plot_sweep(points: Sequence[SweepPoint], file: Path) -> None:
    """AP over the time as multiples of the first model's, one line per model, with the number at each point."""
    metrics = [metric for metric in MAIN_METRICS if any(metric in one.metrics for one in points)]
    figure, panels = new_panels(len(metrics), (4.8 * len(metrics), 3.8), grid='both')
    names = list(dict.fromkeys(one.model for one in points))
    for panel, (metric, title) in zip(panels, metric_titles(metrics).items()):
        for name, style in zip(names, line_styles(len(names))):
            line = [one for one in points if one.model == name and metric in one.metrics]
            x, y = [one.ratio.median for one in line], [100 * one.metrics[metric] for one in line]
            panel.plot(x, y, marker='o', **style, label=name)
            for one, place in zip(line, zip(x, y)):
                panel.annotate(str(one.proposals), place, xytext=(4, -11), textcoords='offset points', fontsize='small')
        panel.set_xlabel(f'time, as a multiple of {names[0]} with {max(one.proposals for one in points)} proposals')
        panel.set_ylabel(title)
        panel.set_xlim(left=0)
        panel.margins(y=0.15)
    panels[0].legend(frameon=False)
    figure.savefig(file)
