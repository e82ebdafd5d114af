"""Say how a run ended: box and mask AP, and where its checkpoint, logs and pictures lie."""

import argparse
import json
import sys
from pathlib import Path

METRICS = [('bbox', 'box'), ('segm', 'mask')]
COLUMNS = [('mAP', ''), ('AP50', '_50'), ('AP75', '_75'), ('small', '_s'), ('medium', '_m'), ('large', '_l')]


class ReportError(Exception):
    """Nothing to report; the text says what was looked for."""


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work folder of a run of tools/train.py or tools/test.py')
    return parser.parse_args()


def read_evaluations(path):
    """The lines of an mmengine JSON file that hold COCO metrics: scalars.json, or what a test run leaves."""
    evaluations = []
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:  # a run that was cut off in mid-line
            continue
        if any(f'coco/{kind}_mAP' in values for kind, _ in METRICS):
            evaluations.append(values)
    return evaluations


def latest_evaluation(work_dir):
    """The folder of the newest run that was evaluated, and the metrics of its last evaluation."""
    if not work_dir.is_dir():
        raise ReportError(f'there is no folder {work_dir}')
    # mmengine names the folder of a run by the time it began, so that their order is that of time.
    runs = sorted((path for path in work_dir.iterdir() if path.is_dir()), reverse=True)
    for run in runs:
        for path in (run / f'{run.name}.json', run / 'vis_data' / 'scalars.json'):
            evaluations = read_evaluations(path) if path.is_file() else []
            if evaluations:
                return run, evaluations[-1]
    raise ReportError(
        f'no run in {work_dir} has COCO metrics ({len(runs)} folders looked through): '
        'none was trained or tested to the end'
    )


def newest_checkpoint(work_dir):
    """The checkpoint that mmengine calls the last one, or None."""
    pointer = work_dir / 'last_checkpoint'
    named = work_dir / Path(pointer.read_text().strip()).name if pointer.is_file() else None
    if named and named.is_file():
        return named
    return max(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime, default=None)


def picture_folder(run):
    """The folder of a run that holds the most pictures, and how many."""
    count = {}
    for path in run.rglob('*'):
        if path.suffix.lower() in ('.png', '.jpg', '.jpeg'):
            count[path.parent] = count.get(path.parent, 0) + 1
    return max(count.items(), key=lambda item: item[1], default=(None, 0))


def report(work_dir):
    run, metrics = latest_evaluation(work_dir)
    lines = ['', f'{"":10}' + ''.join(f'{name:>9}' for name, _ in COLUMNS)]
    for kind, name in METRICS:
        if f'coco/{kind}_mAP' in metrics:
            # COCO's evaluation gives -1 where there is no object of that size.
            values = [metrics.get(f'coco/{kind}_mAP{suffix}', -1) for _, suffix in COLUMNS]
            lines.append(f'{name + " AP":10}' + ''.join(f'{"-" if v < 0 else format(v, ".3f"):>9}' for v in values))
    checkpoint = newest_checkpoint(work_dir)
    pictures, number = picture_folder(run)
    logs = sorted(run.glob('*.log'))
    lines += [
        '',
        f'checkpoint  {checkpoint or "none in " + str(work_dir)}',
        f'log         {logs[-1] if logs else run}',
        f'curves      {run / "vis_data" / "scalars.json"}',
        f'pictures    {pictures}  ({number}; ground truth on the left, predictions on the right)'
        if number
        else f'pictures    none in {run}',
    ]
    return '\n'.join(lines)


def main():
    try:
        print(report(parse_args().work_dir))
    except ReportError as error:
        sys.exit(f'report_run.py: {error}')


if __name__ == '__main__':
    main()
