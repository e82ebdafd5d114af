# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Writes what is derived from the configs and their results. Run it after every change of a config and every training:

    python .dev_scripts/config_index.py

It writes the ``metafile.yml`` of every folder (for mim), the tables of ``docs/configs.md``, and the parameter counts in
``tests/data/parameter_counts.json``. AP comes from the runs in ``docs/results``. ``tests/test_configs.py`` compares all
of them with the configs.
"""

import copy
import json
import re
import warnings
from pathlib import Path
from statistics import mean
from typing import Dict, Iterable

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmpanet  # noqa: F401  registers the modules
from mmdet.registry import MODELS
from mmpanet.evaluation.experiments import Results
from mmpanet.evaluation.seed_summary import SeedSummary, summarize_seeds

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'configs'
FILES = sorted(FOLDER.rglob('*.py'))
PATHS = [path for path in FILES if '_base_' not in path.parts]
COUNTS = ROOT / 'tests' / 'data' / 'parameter_counts.json'
WEIGHTS = ROOT / 'docs' / 'results' / 'weights'  # those of a config have its name
SEED_OF_WEIGHTS = 0
PAGE = ROOT / 'docs' / 'configs.md'
# The runs of the configs, without those of `growth_*.jsonl`, whose configs are written by a script.
RUNS = [ROOT / 'docs' / 'results' / f'{dataset}.jsonl' for dataset in ('carparts', 'dsb2018', 'dsb2018_pretrained')]
TASKS = {'Object Detection': ('box AP', 'bbox_mAP'), 'Instance Segmentation': ('mask AP', 'segm_mAP')}

Counts = Dict[str, Dict[str, int]]
Summaries = Dict[str, SeedSummary]

DATASETS = {
    'data/carparts/': 'Car Parts Dataset',
    'data/coco/': 'COCO',
    'data/cityscapes/': 'Cityscapes',
    'data/dsb2018/': 'Data Science Bowl 2018',
    'data/shapes/': 'shapes (generated)',
}
PANET = dict(
    Name='PANet',
    Metadata=dict(
        Architecture=['Bottom-up Path Augmentation', 'Adaptive Feature Pooling', 'Fully-connected Fusion', 'ResNet']
    ),
    Paper=dict(URL='https://arxiv.org/abs/1803.01534', Title='Path Aggregation Network for Instance Segmentation'),
    README='README.md',
)
FPN = dict(
    Name='FPN baselines',
    Metadata=dict(Architecture=['FPN', 'RoIAlign', 'ResNet']),
    Paper=dict(URL='https://arxiv.org/abs/1703.06870', Title='Mask R-CNN'),
    README='README.md',
)
# The metafile that describes each collection; a name may stand in one metafile only.
COLLECTIONS = {'panet': [PANET], 'shapes': [FPN]}


def name_of(path: Path) -> str:
    """The path of a config below ``configs/``."""
    return path.relative_to(FOLDER).as_posix()


def description_of(path: Path) -> str:
    """What the first line of a config says about it.

    Raises:
        ValueError: If the first line is no comment.
    """
    first = path.read_text().splitlines()[0]
    if not first.startswith('# '):
        raise ValueError(f'configs/{name_of(path)}: the first line must be a comment that says what the config is')
    return first[2:]


def collection_of(cfg: Config) -> dict:
    """``PANET`` if the config has the neck or the pooling of PANet, else ``FPN``."""
    extractor = cfg.model.get('roi_head', {}).get('bbox_roi_extractor', {})
    return PANET if 'PANetNeck' in cfg.model.neck.type or extractor.get('type') == 'AdaptiveFeaturePooling' else FPN


def count_parameters(cfg: Config) -> Dict[str, int]:
    """All parameters of a config's model, and the trainable ones. No memory is allocated."""
    with torch.device('meta'):
        model = MODELS.build(copy.deepcopy(cfg.model))
    parameters = list(model.parameters())
    return dict(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
    )


def read_results() -> Summaries:
    """What the trainings of the configs gave, without overrides, by the name of the config."""
    names = [path.stem for path in PATHS]
    return {one.name: one for file in RUNS for one in summarize_seeds(Results(file), names)}


def counts_text(counts: Counts) -> str:
    """The text of ``parameter_counts.json``: one line per config."""
    return '{\n' + ',\n'.join(f'  {json.dumps(name)}: {json.dumps(count)}' for name, count in counts.items()) + '\n}\n'


def metafiles(configs: Dict[Path, Config], results: Summaries) -> Dict[Path, str]:
    """The text of every ``metafile.yml``, by its path."""
    folders: Dict[str, list] = {}
    for path, cfg in configs.items():
        dataset = cfg.train_dataloader.dataset
        metadata = {'Training Data': DATASETS[dataset.get('dataset', dataset).data_root]}
        if 'max_epochs' in cfg.train_cfg:
            metadata['Epochs'] = cfg.train_cfg.max_epochs
        else:
            metadata['Iterations'] = cfg.train_cfg.max_iters
        model = {
            'Name': path.stem,
            'In Collection': collection_of(cfg)['Name'],
            'Config': path.relative_to(ROOT).as_posix(),
            'Metadata': metadata,
        }
        weights = WEIGHTS / f'{path.stem}.pth'
        if path.stem in results:
            model['Results'] = [
                {
                    'Task': task,
                    'Dataset': metadata['Training Data'],
                    'Metrics': {title: round(_score(results[path.stem], metric, weights.is_file()), 1)},
                }
                for task, (title, metric) in TASKS.items()
            ]
        if weights.is_file():
            model['Weights'] = weights.relative_to(ROOT).as_posix()
        folders.setdefault(path.relative_to(FOLDER).parts[0], []).append(model)
    texts = {}
    for folder, models in folders.items():
        content = dict(Collections=COLLECTIONS[folder]) if folder in COLLECTIONS else {}
        content['Models'] = models
        texts[FOLDER / folder / 'metafile.yml'] = '# written by .dev_scripts/config_index.py\n' + yaml.safe_dump(
            content, sort_keys=False, width=1000
        )
    return texts


def _score(result: SeedSummary, metric: str, has_weights: bool) -> float:
    """The mean over seeds, or what the weights that come with the config have."""
    values = result.values[metric]
    return values[result.seeds.index(SEED_OF_WEIGHTS)] if has_weights else mean(values)


def table(paths: Iterable[Path], configs: Dict[Path, Config], counts: Counts, results: Summaries) -> str:
    """A Markdown table of configs, baselines first. If one of them was trained, it shows the AP of all that were."""
    paths = sorted(paths, key=lambda path: (collection_of(configs[path]) is PANET, path))
    header, line = '| config | what it is | parameters |', '| --- | --- | ---: |'
    trained = any(path.stem in results for path in paths)
    if trained:
        header += f' {" | ".join(title for title, _ in TASKS.values())} | seeds |'
        line += ' --- |' * (len(TASKS) + 1)
    lines = [header, line]
    for path in paths:
        millions = counts[name_of(path)]['parameters'] / 1e6
        row = f'| [{path.stem}](../configs/{name_of(path)}) | {description_of(path)} | {millions:.1f} M |'
        if path.stem in results:
            result = results[path.stem]
            cells = [*(result.cell(metric) for _, metric in TASKS.values()), str(len(result.seeds))]
            row += f' {" | ".join(cells)} |'
        elif trained:
            row += ' - |' * (len(TASKS) + 1)
        lines.append(row)
    return '\n'.join(lines)


def page(text: str, configs: Dict[Path, Config], counts: Counts, results: Summaries) -> str:
    """A Markdown page with its tables of configs written anew.

    A table stands between the lines ``<!-- configs: PATTERN ... -->``, with patterns of files below ``configs/``, and
    ``<!-- end of configs -->``.
    """

    def with_table(match: 're.Match[str]') -> str:
        paths = {path for pattern in match['patterns'].split() for path in FOLDER.glob(pattern)}
        return f'{match["start"]}\n\n{table(paths, configs, counts, results)}\n\n{match["end"]}'

    marked = r'(?P<start><!-- configs: (?P<patterns>.*?) -->)\n.*?(?P<end><!-- end of configs -->)'
    return re.sub(marked, with_table, text, flags=re.DOTALL)


def main() -> None:
    warnings.simplefilter('ignore')
    init_default_scope('mmdet')
    configs = {path: Config.fromfile(path) for path in PATHS}
    counts = {name_of(path): count_parameters(cfg) for path, cfg in configs.items()}
    COUNTS.write_text(counts_text(counts))
    results = read_results()
    for path, text in metafiles(configs, results).items():
        path.write_text(text)
    PAGE.write_text(page(PAGE.read_text(), configs, counts, results))


if __name__ == '__main__':
    main()
