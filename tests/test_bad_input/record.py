# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write every message of the corpus into one page: ``python tests/test_bad_input/record.py``."""

import logging
import sys
import tempfile
from pathlib import Path

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs' / 'errors.md'
STACK_HEADING = '## In the words of the stack\n'

HINT = '(tools/misc/check_dataset.py lists all;'  # the last line of every refusal of data, said once in the head

HEAD = """# Error messages

Wrong configs, checkpoints, annotations, images and command lines, and what mmpanet says to each: the key or the file,
what it holds, and what it takes. None of these inputs trains or is converted, and none leaves anything half-written; a
run that is refused leaves its log.

`tests/test_bad_input/` makes each of them and holds it to that; `python tests/test_bad_input/record.py` writes this
page: {ours} messages of mmpanet, and at the end {others} of the stack.

## What is looked at, and when

- `tools/train.py` and `tools/test.py` check annotation files in COCO format before they are read: all of
  [Annotations](#annotations) below. `check_annotations=False` in the config (or behind `--cfg-options`) leaves that
  out, as a last line says each time. MMDetection itself trains on nothing where no class name fits, shifts labels
  where one is missing, and drops objects with a damaged polygon, all without a word.
- Objects that cover no pixel (a box less than a pixel wide or high, an area of 0) occur in many datasets. MMDetection
  leaves them out, and the log says how many.
- Pixels are looked at by `python tools/misc/check_dataset.py CONFIG --images` alone, which decodes every image: damaged
  files, and images of another size than annotated. In a training a file that is no image ends the run, but of one that
  is cut off OpenCV makes up the rest.
- Datasets that MMDetection reads by other code than `CocoDataset`'s (LVIS, Objects365, videos and more), or from
  anywhere but a file system, are not looked at; nor is anything where the config has a `runner_type` of its own.
- `tools/test.py` and `--resume` refuse a checkpoint that lacks a parameter of the model, and `load_from` one that has
  none of them. mmengine alone logs a warning and goes on with random weights.

"""
STACK = (
    STACK_HEADING
    + """
Here mmpanet leaves the words to those who check: argparse, Python, mmengine, mmcv, MMDetection. They change with their
versions.

"""
)


def write_page(cases, failures):
    """The text of the page."""
    ours = [pair for pair in zip(cases, failures) if pair[0].whose == 'mmpanet']
    others = [pair for pair in zip(cases, failures) if pair[0].whose != 'mmpanet']
    text = HEAD.format(ours=len(ours), others=len(others))
    for part in dict.fromkeys(case.part for case, _ in ours):
        text += f'## {part}\n\n' + ''.join(_entry(*pair) for pair in ours if pair[0].part == part)
    return text + STACK + ''.join(_entry(*pair) for pair in others)


def _entry(case, failure):
    how = f'exit code {failure.error}' if isinstance(failure.error, int) else failure.error.__name__
    whose = '' if case.whose == 'mmpanet' else f' of {case.whose}'
    lines = failure.message.splitlines()
    message = '\n'.join(f'  {line}'.rstrip() for line in lines if not line.startswith(HINT))
    return f'- {case.what} ({how}{whose}):\n\n  ```text\n{message}\n  ```\n\n'


def main():
    sys.path.insert(0, str(ROOT))
    from all_cases import CASES
    from corpus import failure_of

    import mmpanet  # noqa: F401  registers the modules

    init_default_scope('mmdet')
    MMLogger.get_instance('mmengine').setLevel(logging.ERROR)
    failures = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            failures.append(failure_of(case, Path(folder)))
    PAGE.write_text(write_page(CASES, failures), encoding='utf-8')
    print(f'{PAGE}: {len(CASES)} messages')


if __name__ == '__main__':
    main()
