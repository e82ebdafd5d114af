# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""How a run ended: box and mask AP, and where its checkpoint, logs and pictures are."""

import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from mmpanet.utils.errors import DataError
from mmpanet.utils.media import IMAGE_SUFFIXES
from mmpanet.utils.tables import text_table
from .coco_metrics import AP_KINDS, BRANCHES
from .run_log import coco_metrics_in, read_json_lines

OTHER_PICTURES = ('levels_', 'level_distribution', 'gates')  # those of LevelDistributionHook


def run_report(work_dir: Path) -> str:
    """The report on a work folder of ``tools/train.py`` or ``tools/test.py``, for a terminal.

    Raises:
        DataError: If there is no such folder, or no run in it was evaluated.
    """
    run, metrics, later = _latest_evaluation(work_dir)
    rows = []
    for branch, title in BRANCHES.items():
        if f'{branch}_mAP' in metrics:
            values = [metrics.get(f'{branch}_{kind}') for kind in AP_KINDS]
            rows.append([f'{title} AP', *('-' if value is None else f'{value:.3f}' for value in values)])
    tested = _tested_checkpoint(run)
    checkpoint = tested or _newest_checkpoint(work_dir)
    pictures, number = _picture_folder(run)
    logs = sorted(run.glob('*.log'))
    # The AP above is not that of a checkpoint which a later start has written.
    is_doubtful = checkpoint and not tested
    doubt = f'  (may be of the start {later.name}, which has not been evaluated)' if later and is_doubtful else ''
    places = [
        ['checkpoint', str(checkpoint or f'none in {work_dir}') + doubt],
        ['log', str(logs[-1] if logs else run)],
        ['curves', str(run / 'vis_data' / 'scalars.json')],
        [
            'pictures',
            f'{pictures}  ({number}; ground truth on the left, predictions on the right)'
            if pictures
            else f'none in {run}',
        ],
    ]
    return '\n\n'.join([text_table(rows, ['', *AP_KINDS.values()]), text_table(places)])


def _latest_evaluation(work_dir: Path) -> Tuple[Path, Dict[str, float], Optional[Path]]:
    """The folder of the newest run that was evaluated, the metrics of its last evaluation, and the folder of a later
    run that trained without being evaluated, if there is one.
    """
    if not work_dir.is_dir():
        raise DataError(f'there is no folder {work_dir}')
    # mmengine names the folder of a run by the time when it began, so the order of names is that of time.
    runs = sorted((path for path in work_dir.iterdir() if path.is_dir()), reverse=True)
    later = None
    for run in runs:
        for file in (run / f'{run.name}.json', run / 'vis_data' / 'scalars.json'):  # of a test, of a training
            lines = [coco_metrics_in(values) for values in read_json_lines(file)] if file.is_file() else []
            evaluated = [metrics for metrics in lines if any(f'{branch}_mAP' in metrics for branch in BRANCHES)]
            if evaluated:
                return run, evaluated[-1], later
        scalars = run / 'vis_data' / 'scalars.json'
        if later is None and scalars.is_file() and any('loss' in values for values in read_json_lines(scalars)):
            later = run
    raise DataError(f'no run in {work_dir} has COCO metrics ({len(runs)} folders were searched): none was evaluated')


def _tested_checkpoint(run: Path) -> Optional[str]:
    """The checkpoint of a test, or None if the run is a training."""
    config = run / 'vis_data' / 'config.py'
    if not (run / f'{run.name}.json').is_file() or not config.is_file():
        return None
    found = re.search(r"^load_from = '(.+)'$", config.read_text(encoding='utf-8'), re.MULTILINE)
    return found.group(1) if found else None


def _newest_checkpoint(work_dir: Path) -> Optional[Path]:
    """The checkpoint that mmengine calls the last one, or the newest file."""
    pointer = work_dir / 'last_checkpoint'
    named = work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    if named and named.is_file():
        return named
    return max(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime, default=None)


def _picture_folder(run: Path) -> Tuple[Optional[Path], int]:
    """The folder in a run with the most pictures of predictions, and their number."""
    folders: List[Path] = [
        path.parent
        for path in run.rglob('*')
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(OTHER_PICTURES)
    ]
    if not folders:
        return None, 0
    largest = max(folders, key=folders.count)
    return largest, folders.count(largest)
