# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The page that tells what the swap makes of a zoo of configs."""

from collections import Counter, defaultdict
from typing import Iterable, List, Sequence

import mmcv
import mmengine
import torch

import mmdet
import mmpanet
from .sweep import IMAGE_SIZE, LARGE_IMAGE_SIZE, NEED_LARGE_IMAGES, Zoo

INTRODUCTION = """\
# The swap over MMDetection's zoo

What `tools/model_converters/swap_neck.py` makes of every config of MMDetection {mmdet}: the tables below were written
by `python .dev_scripts/swap_zoo/zoo_table.py` (mmpanet {mmpanet}, mmdet {mmdet}, mmcv {mmcv}, mmengine {mmengine},
torch {torch}, on a CPU). [swap.md](swap.md) says what a swap does, what holds with a warm start, and what is refused.

- **Swapped**: the config was rewritten, `FPN` to `PANetNeck`, and with `--roi-head` where that can be.
- **Built**: the whole model was built before and after the swap, and its neck ran on random maps before and after,
  with the same weights: the levels have the same shapes, and with `--warm-start` the same values up to the number
  given (0: exactly; the bottom-up path of a PAFPN is replaced, so its levels are others). SyncBN is BN here.
- **Trained**: configs that are the same but for backbone, losses, data and schedule are a *group*. The smallest of each
  trained one step, swapped, with its RoI head where that can be: two images of {size} x {size} ({large_size} x
  {large_size} for {large_models}), a finite loss, a finite gradient for every parameter of neck and RoI head. Then it
  predicted. Pretrained weights are left out, proposals and samples are fewer, large padding is left out, and the fc of
  the box heads are narrow. Of a tracker or a semi-supervised model its detector was trained.
"""


def zoo_page(zoo: Zoo) -> str:
    """The page as Markdown."""
    builds = [zoo.builds[name] for name in sorted(zoo.builds)]
    with_fpn = [build for build in builds if 'arguments' in build]
    versions = dict(
        mmdet=mmdet.__version__,
        mmpanet=mmpanet.__version__,
        mmcv=mmcv.__version__,
        mmengine=mmengine.__version__,
        torch=torch.__version__.partition('+')[0],
    )
    parts = [
        INTRODUCTION.format(
            size=IMAGE_SIZE, large_size=LARGE_IMAGE_SIZE, large_models=', '.join(NEED_LARGE_IMAGES), **versions
        ),
        _what_is_left(zoo),
        '## Totals\n',
        _totals(zoo, builds, with_fpn),
        '### RoI heads over an FPN, with `--roi-head`\n',
        _roi_heads(with_fpn),
        '### What did not work\n',
        _failures(zoo, with_fpn),
        '### Without an FPN, and left alone\n',
        _other_necks(builds),
        '### Not loaded\n',
        _not_loaded(builds),
        '## Groups\n',
        _groups(zoo),
        '## Configs\n',
        'Parameters in millions: before, with `PANetNeck`, with the RoI head too.\n',
        _configs(zoo, with_fpn),
    ]
    return '\n'.join(part.rstrip('\n') + '\n' for part in parts)


def _what_is_left(zoo: Zoo) -> str:
    """A word on top of the page of a run that has not come to its end."""
    configs, groups = len(zoo.configs()), len(zoo.groups())
    builds, trainings = len(zoo.to_build()), len(zoo.to_train())
    if not builds and not trainings:
        return ''
    return (
        f'**Unfinished.** {configs - builds} of {configs} configs were gone through, and {groups - trainings} of '
        f'the {groups} groups among them trained, when this was written; '
        '`python .dev_scripts/swap_zoo/zoo_table.py` goes on from there.\n'
    )


def _totals(zoo: Zoo, builds: List[dict], with_fpn: List[dict]) -> str:
    kinds = Counter(build['neck'] for build in with_fpn)
    built = [build for build in with_fpn if build.get('built')]
    exact = [build for build in built if build['difference'] == 0]
    groups = zoo.groups()
    trained = [name for name in groups if zoo.trainings.get(name, {}).get('works')]
    covered = sum(len(groups[name]) for name in trained)
    swapped = [build for build in with_fpn if build.get('failed') != 'swap']
    rows = [
        ('configs', len(builds)),
        ('... that do not load here', sum(build.get('failed') == 'load' for build in builds)),
        ('... that are parts of others, without a model', sum(build.get('failed') == 'no model' for build in builds)),
        ('... without an FPN', sum(build.get('failed') == 'no FPN' for build in builds)),
        ('... with an FPN: ' + ', '.join(f'{count} {neck}' for neck, count in kinds.most_common()), len(with_fpn)),
        ('necks swapped', len(swapped)),
        ('built before and after, neck run', len(built)),
        ('warm start: levels exactly as before', len(exact)),
        ('RoI heads swapped too', sum(build['roi_head_swap'] == 'swapped' for build in swapped)),
        ('groups', len(groups)),
        ('groups that train and predict', f'{len(trained)}, which stand for {covered} configs'),
    ]
    return _table(('', 'number'), rows)


def _roi_heads(with_fpn: List[dict]) -> str:
    heads = defaultdict(list)
    for build in with_fpn:
        if build['roi_head'] != '-':
            heads[build['roi_head']].append(build.get('roi_head_swap', '-'))
    rows = []
    for head, swaps in sorted(heads.items(), key=lambda item: -len(item[1])):
        refused = Counter(_reason(swap) for swap in swaps if swap != 'swapped')
        rows.append(
            (
                head,
                len(swaps),
                swaps.count('swapped'),
                sum(refused.values()),
                '; '.join(f'{count}: {reason}' for reason, count in refused.most_common()),
            )
        )
    rows.append(('none', sum(build['roi_head'] == '-' for build in with_fpn), 0, 0, 'the neck alone'))
    return _table(('RoI head', 'configs', 'swapped', 'refused', 'why'), rows)


def _reason(refusal: str) -> str:
    return refusal.partition('(without --roi-head): ')[2] or refusal


def _failures(zoo: Zoo, with_fpn: List[dict]) -> str:
    failed = defaultdict(list)
    stages = {'swap': 'not swapped', 'build before': 'MMDetection cannot build it', 'build after': 'not built'}
    for build in with_fpn:
        if not build.get('built'):
            failed[stages[build['failed']], build['why']].append(build['config'])
    for name, training in sorted(zoo.trainings.items()):
        if not training['works']:
            before = training['before']
            if before is None:
                what = 'does not train and predict'
            else:
                what = 'does not train and predict, nor before the swap' + (
                    '' if before == training['why'] else f' ({before})'
                )
            failed[what, training['why']].append(name)
    if not failed:
        return 'Nothing.'
    return _table(
        ('what', 'why', 'configs'),
        [(what, why, ', '.join(f'`{name}`' for name in names)) for (what, why), names in failed.items()],
    )


def _other_necks(builds: List[dict]) -> str:
    necks = defaultdict(list)
    for build in builds:
        if build.get('failed') == 'no FPN':
            why = build['why'].partition('stays, ')[2] or build['why'].replace('nothing to swap: ', '')
            necks[build['neck'], why].append(build['config'])
    rows = [
        (neck, len(names), why, f'`{names[0]}`')
        for (neck, why), names in sorted(necks.items(), key=lambda item: -len(item[1]))
    ]
    return _table(('neck', 'configs', 'why', 'such as'), rows)


def _not_loaded(builds: List[dict]) -> str:
    rows = [(f'`{build["config"]}`', build['why']) for build in builds if build.get('failed') == 'load']
    return _table(('config', 'why'), rows)


def _groups(zoo: Zoo) -> str:
    rows = []
    for number, (name, members) in enumerate(zoo.groups().items(), start=1):
        build, training = zoo.builds[name], zoo.trainings.get(name)
        outcome = 'not tried' if training is None else 'yes' if training['works'] else 'no, see above'
        swapped = 'neck and RoI head' if build['roi_head_swap'] == 'swapped' else 'neck'
        rows.append((number, f'`{name}`', len(members), build['model'], build['roi_head'], swapped, outcome))
    head = ('group', 'its smallest config', 'configs', 'model', 'RoI head', 'swapped', 'trains and predicts')
    return _table(head, rows)


def _configs(zoo: Zoo, with_fpn: List[dict]) -> str:
    group_of = {member: number for number, members in enumerate(zoo.groups().values(), start=1) for member in members}
    rows = []
    for build in with_fpn:
        if build['roi_head'] == '-':
            roi_head = '-'
        else:
            swap = build.get('roi_head_swap', '-')
            roi_head = f'{build["roi_head"]}: {"swapped" if swap == "swapped" else "refused"}'
        parameters = ' / '.join(f'{number / 1e6:.1f}' for number in build.get('parameters', []) if number is not None)
        rows.append(
            (
                f'`{build["config"]}`',
                build['model'],
                f'{build["neck"]} ({build["arguments"]})',
                roi_head,
                'yes' if build.get('built') else f'no ({build["failed"]})',
                f'{build["difference"]:.1g}' if 'difference' in build else '-',
                parameters or '-',
                group_of.get(build['config'], '-'),
            )
        )
    head = ('config', 'model', 'neck', 'RoI head', 'built', 'warm start differs by', 'parameters', 'group')
    return _table(head, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return ''.join('| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in line) + ' |\n' for line in lines)
