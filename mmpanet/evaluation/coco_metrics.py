# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The metrics of mmdet's ``CocoMetric``, such as ``segm_mAP_50``, and their titles in tables."""

from typing import Dict, Iterable

METRIC_PREFIX = 'coco/'
BRANCHES = {'bbox': 'box', 'segm': 'mask'}
AP_KINDS = {'mAP': 'AP', 'mAP_50': 'AP50', 'mAP_75': 'AP75', 'mAP_s': 'small', 'mAP_m': 'medium', 'mAP_l': 'large'}
MAIN_METRICS = tuple(f'{branch}_mAP' for branch in BRANCHES)


def metric_titles(metrics: Iterable[str]) -> Dict[str, str]:
    """The title of each metric, in the order of a table: ``{'segm_mAP_s': 'mask small'}``. Others are left out."""
    titles = {
        f'{branch}_{kind}': f'{branch_title} {kind_title}'
        for branch, branch_title in BRANCHES.items()
        for kind, kind_title in AP_KINDS.items()
    }
    wanted = set(metrics)
    return {metric: title for metric, title in titles.items() if metric in wanted}


def percent(value: float) -> str:
    return f'{100 * value:.1f}'
