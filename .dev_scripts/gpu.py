# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Try mmpanet on a GPU, and measure it there: ``make gpu``.

Four steps: mmcv with the operators of the device is kept or compiled, the tests marked ``gpu`` run on the device, the
pooling operations are timed, and the models of docs/benchmarks.md are timed. All results go to one folder. report.md in
it holds the tables for the documentation, and says what ``backend='auto'`` of the RoI extractors should choose on this
device. A step that fails is reported, and the next one runs.
"""

import argparse
import json
import os
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, NamedTuple, Sequence

import torch

ROOT = Path(__file__).resolve().parents[1]
STEPS = ('mmcv', 'tests', 'pooling', 'models')
DTYPES = ('float32', 'float16', 'bfloat16')
MODELS = ('fpn', 'fpn-s2', 'fpn-s2-fast', 'pafpn', 'bpa', 'bpa-afp', 'panet', 'panet-plain')
DIRECTIONS = {'inference': ('forward',), 'training': ('forward', 'backward')}
BACKENDS = {'mmcv': 'roi_align', 'mmpanet': 'embedding_bag'}  # what benchmark_pooling.py calls them
PROBE_OPERATORS = 'import mmcv.ops; print(mmcv.ops.get_compiling_cuda_version())'


class StepError(Exception):
    """What went wrong in a step."""


class PoolingTime(NamedTuple):
    """Seconds of one form of pooling with each backend."""

    form: str  # 'every level' or 'its own level'
    mode: str  # 'inference' or 'training'
    roi_align: float
    embedding_bag: float

    @property
    def faster(self) -> str:
        return 'embedding_bag' if self.embedding_bag < self.roi_align else 'roi_align'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='\n'.join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--device', default='cuda', help='cuda, cuda:1, ... or cpu (default: %(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/gpu'), help='folder of the results (%(default)s)')
    parser.add_argument('--steps', nargs='+', choices=STEPS, default=STEPS, help='what to do (default: all)')
    parser.add_argument('--models', nargs='+', default=MODELS, help='models to time (default: those of the page)')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=DTYPES, help='(default: all)')
    parser.add_argument('--size', nargs=2, default=('800', '1344'), metavar=('HEIGHT', 'WIDTH'), help='of the images')
    parser.add_argument('--rois', default='1000', help='proposals per image (default: %(default)s)')
    parser.add_argument('--rounds', default='10', help='rounds of each measurement (default: %(default)s)')
    parser.add_argument('--pytest', nargs='*', default=[], metavar='WORD', help='more words for pytest')
    return parser.parse_args()


def run(*words: object, **variables: str) -> None:
    """Run a Python script of the checkout with this Python."""
    command = [sys.executable, *map(str, words)]
    print('$', *command, flush=True)
    code = subprocess.run(command, cwd=str(ROOT), env={**os.environ, **variables}).returncode
    if code != 0:
        raise StepError(f'{" ".join(command[1:3])} ended with {code}')


def install_mmcv(args: argparse.Namespace) -> List[str]:
    """An mmcv whose operators do not run on the device is replaced."""
    install = ROOT / 'tools/install/install_mmcv.py'
    on_gpu = args.device.startswith('cuda')
    run(install, *([] if on_gpu else ['--cpu']))  # where torch sees a GPU, it takes or builds the operators for it
    if on_gpu and operators() == 'not available':
        run(install, '--cuda', '--force')
    return [f'CUDA operators of mmcv: {operators()}']


def operators() -> str:
    """The CUDA version of mmcv's operators, or ``'not available'``."""
    result = subprocess.run([sys.executable, '-W', 'ignore', '-c', PROBE_OPERATORS], stdout=subprocess.PIPE, text=True)
    return (result.stdout.splitlines() or ['not available'])[-1]


def run_tests(args: argparse.Namespace) -> List[str]:
    report = args.out / 'tests.xml'
    words = ['-m', 'pytest', '-q', '-m', 'gpu', f'--junitxml={report}', *(args.pytest or [ROOT / 'tests'])]
    failure = None
    if report.is_file():
        report.unlink()  # of an earlier run
    try:
        run(*words, MMPANET_TEST_DEVICE=args.device)
    except StepError as error:
        failure = error
    if not report.is_file():
        raise failure or StepError('pytest wrote no report')
    cases = list(xml.etree.ElementTree.parse(str(report)).iter('testcase'))
    outcomes: Dict[str, List[str]] = {'passed': [], 'failed': [], 'skipped': []}
    for case in cases:
        name = f'{case.get("classname")}::{case.get("name")}'
        skipped = case.find('skipped')
        if case.find('failure') is not None or case.find('error') is not None:
            outcomes['failed'].append(name)
        elif skipped is not None:
            outcomes['skipped'].append(f'{name}: {skipped.get("message")}')
        else:
            outcomes['passed'].append(name)
    lines = [', '.join(f'{len(names)} {outcome}' for outcome, names in outcomes.items()) + '.', '']
    lines += [f'- {outcome}: {name}' for outcome in ('failed', 'skipped') for name in outcomes[outcome]]
    if failure:
        lines.append(f'- **{failure}**')
    return lines


def time_pooling(args: argparse.Namespace) -> List[str]:
    report = args.out / 'pooling.json'
    sizes = ['--size', *args.size, '--rois', args.rois, '--rounds', args.rounds]
    run(ROOT / 'tools/analysis_tools/benchmark_pooling.py', '--device', args.device, '--out', report, *sizes)
    content = json.loads(report.read_text())
    times = pooling_times(content['rows'])
    choice = choose_backend(times)
    hardware = content['environment']['hardware']
    (args.out / 'auto.json').write_text(json.dumps(dict(device=args.device, hardware=hardware, choice=choice)) + '\n')
    lines = ['| pooling | mode | roi_align, ms | embedding_bag, ms | faster |', '| --- | --- | --- | --- | --- |']
    for time in times:
        milliseconds = f'{1e3 * time.roi_align:.3f} | {1e3 * time.embedding_bag:.3f}'
        lines.append(f'| {time.form} | {time.mode} | {milliseconds} | {time.faster} |')
    return [*lines, '', f"`backend='auto'` should choose on {hardware}: {choice}."]


def pooling_times(rows: Sequence[Dict[str, Any]]) -> List[PoolingTime]:
    """Medians over rounds, from the rows that benchmark_pooling.py writes; training is forward and backward."""
    times = []
    for form in dict.fromkeys(row['form'] for row in rows):
        by_direction = {row['direction']: row for row in rows if row['form'] == form}
        for mode, directions in DIRECTIONS.items():
            seconds = {
                backend: median(
                    map(sum, zip(*(by_direction[direction][f'{name}_seconds'] for direction in directions)))
                )
                for name, backend in BACKENDS.items()
            }
            times.append(PoolingTime(form, mode, **seconds))
    return times


def choose_backend(times: Sequence[PoolingTime]) -> str:
    """The backend that is faster in all cases, or which one is faster where."""
    faster = {time.faster for time in times}
    if len(faster) == 1:
        return faster.pop()
    return ', '.join(f'{time.faster} ({time.form}, {time.mode})' for time in times)


def time_models(args: argparse.Namespace) -> List[str]:
    lines: List[str] = []
    for dtype in args.dtypes:
        folder = args.out / dtype
        options = ['--size', *args.size, '--rois', args.rois, '--rounds', args.rounds, '--out', folder]
        words = [*args.models, '--device', args.device, '--dtype', dtype, *options]
        try:
            run(ROOT / 'tools/analysis_tools/benchmark.py', *words)
            lines += [f'### {dtype}', '', (folder / 'benchmark.md').read_text()]
        except StepError as error:
            lines += [f'### {dtype}', '', f'- **{error}**', '']
    return lines


def main() -> None:
    args = parse_args()
    if args.device.startswith('cuda') and not torch.cuda.is_available():
        sys.exit(f'gpu.py: --device {args.device}: torch {torch.__version__} finds no GPU here')
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    actions = dict(zip(STEPS, (install_mmcv, run_tests, time_pooling, time_models)))
    sections, failed = [f'# mmpanet on {args.device}'], []
    for step in STEPS:
        if step not in args.steps:
            continue
        try:
            lines = actions[step](args)
        except StepError as error:
            lines = [f'- **{error}**']
        if any(line.startswith('- **') for line in lines):
            failed.append(step)
        sections.append('\n'.join([f'## {step}', '', *lines]))
        (args.out / 'report.md').write_text('\n\n'.join(sections) + '\n')
    print(args.out / 'report.md')
    if failed:
        sys.exit(f'gpu.py: not everything is well in {", ".join(failed)}')


if __name__ == '__main__':
    main()
