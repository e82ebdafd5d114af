# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The page and the CSV file that tell what the swap makes of a zoo of configs."""

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Dict, List, Tuple

import mmcv
import mmengine
import torch

import mmdet
import mmpanet
from mmpanet.utils.tables import markdown_table
from .sweep import IMAGE_SIZE, LARGE_IMAGE_SIZE, NEED_LARGE_IMAGES, Zoo

COMMAND = 'python .dev_scripts/sweep_zoo.py'
INTRODUCTION = """\
# The swap over MMDetection's zoo

This page says what `tools/model_converters/swap_neck.py` makes of the configs of MMDetection {mmdet}.
[`zoo.csv`]({csv}) has one row per config. [The swap](swap.md) explains what a swap does and what it refuses.
`{command}` wrote both files, with mmpanet {mmpanet}, mmdet {mmdet}, mmcv {mmcv}, mmengine {mmengine} and
torch {torch} on a CPU.

Three things were tried:

- **Swap.** The config is rewritten: `FPN` becomes `PANetNeck`, and with `--roi-head` the RoI head becomes PANet's.
- **Build.** The whole model is built before and after the swap. Its neck runs on random maps before and after, with the
  same weights, and the levels must have the same shapes. With `--warm-start` they must also have the same values; the
  CSV gives the largest difference. (A `PAFPN` is the exception: its bottom-up path is replaced, so its levels change.)
- **Train.** Configs that differ only in backbone, losses, data or schedule form a *group*. The smallest config of each
  group trains one step after the swap. The loss must be finite, and so must the gradients of all parameters of neck and
  RoI head. Then the model predicts.

The models train with two images of {size} x {size} pixels ({large_models}: {large_size} x {large_size}).
Pretrained weights and large padding are left out, SyncBN is BN, there are fewer proposals and samples, and the
fully-connected layers of the box heads are narrow. Of a tracker or a semi-supervised model, the detector is trained.
"""
RERUN = """\
`{command}` goes through the configs of the installed MMDetection, and writes this page
and the CSV file. It keeps its results in `work_dirs/zoo/results.jsonl`. If it was stopped, it goes on from there. To
start again, delete that file.

`--only TEXT` takes only the configs with that text in their path. `--page-only` writes both files from the results that
exist. [The swap](swap.md#the-whole-zoo) says how long it takes, and which packages some configs need.
"""
CSV_COLUMNS = (
    'config',
    'model',
    'neck',
    'neck_arguments',
    'neck_swapped',
    'roi_head',
    'roi_head_swapped',
    'built',
    'warm_start_difference',
    'million_parameters_before',
    'million_parameters_with_neck',
    'million_parameters_with_neck_and_roi_head',
    'group',
    'group_trains',
    'reason',
)


def write_csv(zoo: Zoo, file: Path) -> None:
    """Write one row per config. A group has the name of its smallest config."""
    group_of = {member: name for name, members in zoo.groups().items() for member in members}
    with file.open('w', newline='') as stream:
        writer = csv.DictWriter(stream, CSV_COLUMNS, restval='', lineterminator='\n')
        writer.writeheader()
        for name in sorted(zoo.builds):
            writer.writerow(_csv_row(zoo, zoo.builds[name], group_of.get(name)))


def _csv_row(zoo: Zoo, build: dict, group: str) -> Dict[str, str]:
    row = dict(config=build['config'], model=build.get('model', ''), neck=build.get('neck', ''))
    swapped = 'arguments' in build and build.get('failed') != 'swap'
    row.update(neck_swapped=_yes_or_no(swapped), built=_yes_or_no(build.get('built')), reason=build.get('why', ''))
    if 'arguments' not in build:  # it has no FPN
        return row
    row.update(neck_arguments=build['arguments'], roi_head=build['roi_head'])
    if build['roi_head'] != '-':
        roi_head_swap = build.get('roi_head_swap', '-')
        row['roi_head_swapped'] = _yes_or_no(roi_head_swap == 'swapped')
        if roi_head_swap not in ('swapped', '-'):
            row['reason'] = row['reason'] or _reason(roi_head_swap)
    if build.get('built'):
        row['warm_start_difference'] = f'{build["difference"]:.1g}'
        for column, number in zip(CSV_COLUMNS[9:12], build['parameters']):
            row[column] = '' if number is None else f'{number / 1e6:.1f}'
    training = zoo.trainings.get(group)
    if group:
        row.update(group=group, group_trains='' if training is None else _yes_or_no(training['works']))
    if training and not training['works']:
        row['reason'] = row['reason'] or f'the group does not train: {training["why"]}'
    return row


def _yes_or_no(value: object) -> str:
    return 'yes' if value else 'no'


def zoo_page(zoo: Zoo, csv_name: str) -> str:
    """The page as Markdown.

    Args:
        zoo: What was tried.
        csv_name: Link to the file of :func:`write_csv`.
    """
    versions = dict(
        mmdet=mmdet.__version__,
        mmpanet=mmpanet.__version__,
        mmcv=mmcv.__version__,
        mmengine=mmengine.__version__,
        torch=torch.__version__.partition('+')[0],
    )
    introduction = INTRODUCTION.format(
        csv=csv_name,
        command=COMMAND,
        size=IMAGE_SIZE,
        large_size=LARGE_IMAGE_SIZE,
        large_models=', '.join(NEED_LARGE_IMAGES),
        **versions,
    )
    parts = [
        introduction,
        _unfinished(zoo),
        '## Totals\n',
        _totals(zoo),
        '## RoI heads over an FPN, with `--roi-head`\n',
        _roi_heads(zoo),
        '## Failures\n',
        'Configs with an FPN. Where "before the swap" is named, MMDetection fails in the same place without it.\n',
        _failures(zoo),
        '## Necks that are left alone\n',
        'The swap refuses these configs and says why.\n',
        _other_necks(zoo),
        '## Configs that do not load\n',
        'MMDetection itself cannot load them in this environment.\n',
        _not_loaded(zoo),
        '## Run it again\n',
        RERUN.format(command=COMMAND),
    ]
    return '\n'.join(part for part in parts if part)


def _unfinished(zoo: Zoo) -> str:
    """A warning, if the sweep has not come to its end."""
    configs, groups = len(zoo.configs()), len(zoo.groups())
    builds, trainings = len(zoo.to_build()), len(zoo.to_train())
    if not builds and not trainings:
        return ''
    return (
        f'**Unfinished.** When this was written, {configs - builds} of {configs} configs had been swapped and built, '
        f'and {groups - trainings} of their {groups} groups had been trained.\n'
    )


def _with_fpn(zoo: Zoo) -> List[dict]:
    return [zoo.builds[name] for name in sorted(zoo.builds) if 'arguments' in zoo.builds[name]]


def _totals(zoo: Zoo) -> str:
    failures = Counter(build.get('failed') for build in zoo.builds.values())
    with_fpn = _with_fpn(zoo)
    necks = Counter(build['neck'] for build in with_fpn)
    built = [build for build in with_fpn if build.get('built')]
    groups = zoo.groups()
    trained = [name for name in groups if zoo.trainings.get(name, {}).get('works')]
    rows = [
        ('configs', len(zoo.builds)),
        ('of these: do not load here', failures['load']),
        ('of these: parts of other configs, without a model', failures['no model']),
        ('of these: have no FPN', failures['no FPN']),
        (f'of these: have an FPN ({", ".join(f"{n} {neck}" for neck, n in necks.most_common())})', len(with_fpn)),
        ('necks that were swapped', sum(build.get('failed') != 'swap' for build in with_fpn)),
        ('models that were built before and after the swap', len(built)),
        ('warm starts with exactly the levels of the FPN', sum(build['difference'] == 0 for build in built)),
        ('RoI heads that were swapped', sum(build.get('roi_head_swap') == 'swapped' for build in with_fpn)),
        ('groups', len(groups)),
        ('groups that train and predict', len(trained)),
        ('configs in these groups', sum(len(groups[name]) for name in trained)),
    ]
    return markdown_table(rows, ('', 'number'))


def _roi_heads(zoo: Zoo) -> str:
    heads: Dict[str, List[str]] = defaultdict(list)
    for build in _with_fpn(zoo):
        heads[build['roi_head']].append(build.get('roi_head_swap', '-'))
    without = heads.pop('-', [])
    rows = []
    for head, outcomes in sorted(heads.items(), key=lambda item: -len(item[1])):
        refused = Counter(_reason(outcome) for outcome in outcomes if outcome != 'swapped')
        reasons = '; '.join(f'{count}: {reason}' for reason, count in refused.most_common())
        rows.append((head, len(outcomes), outcomes.count('swapped'), sum(refused.values()), reasons))
    rows.append(('no RoI head', len(without), 0, 0, ''))
    return markdown_table(rows, ('RoI head', 'configs', 'swapped', 'refused', 'reason'))


def _reason(refusal: str) -> str:
    """A refusal of the swap without the words that all refusals of RoI heads share."""
    return refusal.partition('(without --roi-head): ')[2] or refusal


def _failures(zoo: Zoo) -> str:
    stages = {
        'swap': 'the neck is not swapped',
        'build before': 'MMDetection cannot build the model',
        'build after': 'the swapped model cannot be built',
    }
    configs: Dict[Tuple[str, str], List[str]] = defaultdict(list)
    for build in _with_fpn(zoo):
        if not build.get('built'):
            configs[stages[build['failed']], build['why']].append(build['config'])
    for name, training in sorted(zoo.trainings.items()):
        if not training['works']:
            before = training['before']
            outcome = 'the group does not train and predict'
            if before is not None:
                outcome += ', nor before the swap' + ('' if before == training['why'] else f' ({before})')
            configs[outcome, training['why']].append(name)
    if not configs:
        return 'There are none.\n'
    rows = [(what, why, _code(names)) for (what, why), names in configs.items()]
    return markdown_table(rows, ('what', 'why', 'configs, or the smallest config of a group'))


def _other_necks(zoo: Zoo) -> str:
    necks: Dict[Tuple[str, str], List[str]] = defaultdict(list)
    for name in sorted(zoo.builds):
        build = zoo.builds[name]
        if build.get('failed') == 'no FPN':
            why = build['why'].partition('stays, ')[2] or build['why'].replace('nothing to swap: ', '')
            necks[build['neck'], why].append(name)
    rows = [
        (neck, len(names), why, _code(names[:1]))
        for (neck, why), names in sorted(necks.items(), key=lambda item: -len(item[1]))
    ]
    return markdown_table(rows, ('neck', 'configs', 'reason', 'for example'))


def _not_loaded(zoo: Zoo) -> str:
    configs: Dict[str, List[str]] = defaultdict(list)
    for name in sorted(zoo.builds):
        build = zoo.builds[name]
        if build.get('failed') == 'load':
            reason = build['why'].replace(f'config {Path(name).name}: ', '')
            configs[reason].append(name)
    if not configs:
        return 'There are none.\n'
    rows = [(why, len(names), _code(names)) for why, names in sorted(configs.items(), key=lambda item: -len(item[1]))]
    return markdown_table(rows, ('why', 'number', 'configs'))


def _code(names: List[str]) -> str:
    return ', '.join(f'`{name}`' for name in names)
