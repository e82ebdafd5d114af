# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What came out on each stack: kept in ``docs/results/stacks.json``, shown in ``docs/install.md``."""

import json
import os

from environment import CONSTRAINTS, ROOT

RECORDS = ROOT / 'docs' / 'results' / 'stacks.json'
PAGE = ROOT / 'docs' / 'install.md'
BEGIN, END = '<!-- stacks: begin; written by `make stacks` -->', '<!-- stacks: end -->'
MODULES = ('python', 'torch', 'mmcv', 'mmengine', 'mmdet', 'numpy', 'cv2', 'onnx')


def keep(name, record):
    """Put the record of a stack in the place of an older one, and write the page anew.

    What an earlier run found and this one left out (tests or journey) is dropped only if the versions have changed.
    """
    records = load()
    older = records.get(name, {})
    if older.get('versions') == record['versions']:
        record = {**older, **record}
    records[name] = record
    write_whole(RECORDS, json.dumps(dict(sorted(records.items())), indent=1) + '\n')
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_whole(PAGE, f'{before}{BEGIN}\n\n{version_table()}\n\n{journey_table()}\n\n{END}{after}')


def write_whole(path, text):
    """Write a file in one step, so that a run that is stopped leaves the old one."""
    part = path.with_name(f'{path.name}.part')
    part.write_text(text)
    os.replace(part, path)


def load():
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    return {name: record for name, record in records.items() if (CONSTRAINTS / f'{name}.txt').is_file()}


def version_table():
    titles = ['stack', *('OpenCV' if module == 'cv2' else module for module in MODULES), 'quick tests', 'date']
    rows = []
    for name, record in ordered():
        versions = [record['versions'].get(module, '') for module in MODULES]
        tests = record.get('tests')
        passed = '{passed} passed, {failed} failed, {skipped} skipped'.format(**tests) if tests else 'not run'
        if tests and tests.get('again'):
            passed += f' ({tests["again"]} of them in a second run, after a mend)'
        rows.append([f'`{name}`', *versions, passed, record['date']])
    return markdown(titles, rows)


def journey_table():
    records = [(name, record) for name, record in ordered() if 'journey' in record]
    steps = list(dict.fromkeys(step for _, record in records for step in record['journey']))
    rows = [[step, *(record['journey'].get(step, '') for _, record in records)] for step in steps]
    return markdown(['step', *(f'`{name}`' for name, _ in records)], rows)


def ordered():
    """The records, oldest torch first and the forks last."""

    def key(item):
        version = item[1]['versions']['torch'].split('+')[0]
        return item[1]['family'] != 'mmcv', [int(part) for part in version.split('.')], item[0]

    return sorted(load().items(), key=key)


def markdown(titles, rows):
    lines = [titles, ['---'] * len(titles), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in line) + ' |' for line in lines)
