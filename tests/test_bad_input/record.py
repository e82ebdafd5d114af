# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The snapshot of all messages: ``python tests/test_bad_input/record.py`` writes ``tests/data/messages.json``."""

import json
import logging
import sys
import tempfile
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / 'tests' / 'data' / 'messages.json'


def entry(case, failure):
    """What the snapshot holds of one case."""
    how = f'exit code {failure.error}' if isinstance(failure.error, int) else failure.error.__name__
    return dict(part=case.part, whose=case.whose, error=how, message=failure.message.splitlines())


def main():
    sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]
    from all_cases import CASES
    from corpus import failure_of

    import mmpanet  # noqa: F401  registers the modules

    init_default_scope('mmdet')
    MMLogger.get_instance('mmengine').setLevel(logging.ERROR)
    entries = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            entries[case.what] = entry(case, failure_of(case, Path(folder)))
    SNAPSHOT.write_text(json.dumps(entries, indent=1) + '\n', encoding='utf-8')
    print(f'{SNAPSHOT}: {len(CASES)} messages')


if __name__ == '__main__':
    main()
