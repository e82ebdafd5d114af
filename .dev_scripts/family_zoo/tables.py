# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The tables of docs/family.md."""

from collections import Counter
from typing import Dict, List

from mmpanet.utils.tables import markdown_table

STEPS = {
    'load': 'loads',
    'neck_swapped': 'neck swapped',
    'roi_head_swapped': 'RoI head swapped',
    'built_before': 'built before the swap',
    'built': 'built',
    'written': 'written',
    'trained': 'trained one step',
    'predicted': 'predicted',
}
COUNTED = ('neck_swapped', 'roi_head_swapped', 'built', 'trained', 'predicted')


def tables(results: List[dict]) -> str:
    """How many configs passed each step, and the reasons of those that did not."""
    packages: Dict[str, List[dict]] = {}
    for result in results:
        packages.setdefault(result['package'], []).append(result)
    counts = [[package, len(some), *(_share(some, step) for step in COUNTED)] for package, some in packages.items()]
    headers = ['package', 'configs with an FPN', *(STEPS[step] for step in COUNTED)]
    return (
        markdown_table(counts, headers)
        + '\n'
        + markdown_table(_reasons(packages), ['package', 'step', 'configs', 'why'])
    )


def _share(results: List[dict], step: str) -> str:
    """The number of configs that passed a step. Not all have an RoI head, so for this part also how many have one."""
    passed = str(sum(result.get(step) is True for result in results))
    if step == 'roi_head_swapped':
        heads = sum(result.get(step, '-') != '-' for result in results)
        return f'{passed} of {heads}' if heads else '-'
    return passed


def _reasons(packages: Dict[str, List[dict]]) -> List[list]:
    reasons: Counter = Counter()
    for package, results in packages.items():
        for result in results:
            for step, words in STEPS.items():
                why = result.get(step, True)
                if why is True or why == '-':
                    continue
                if why == result.get('before', {}).get(step) and not why.startswith('not tried'):
                    why += '; the same without the swap'
                reasons[package, words, why] += 1
    return [[package, step, count, why] for (package, step, why), count in reasons.items()]
