# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Run mmpanet on the stacks of ``requirements/stacks``: ``make stacks``, or ``make stack STACK=torch21``.

For each stack it makes a virtual environment, compiles mmcv once, installs the wheel of this checkout, runs the quick
tests against the wheel, and takes a user's steps on small data (see ``journey.py``). What came out is kept in
``docs/results/stacks.json``, and the tables of ``docs/install.md`` are written from it. A stack whose Python is not
on this machine is passed over.
"""

import argparse
import datetime
import shlex
import subprocess
import sys
import time
import xml.etree.ElementTree
from pathlib import Path

import tables
from environment import CONSTRAINTS, ROOT, InstallationError, MissingPythonError, Stack, StackError
from journey import Journey

KNOWN = sorted(path.stem for path in CONSTRAINTS.glob('*.txt'))
LINES_OF_A_FAILURE = 30
RAN_TO_THE_END = (0, 1)  # exit statuses of pytest: all passed, some failed. With others some tests may not have run.


def parse_args(words=None):
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='\n'.join(__doc__.splitlines()[2:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('stacks', nargs='*', metavar='STACK', help=f'some of {", ".join(KNOWN)}; by default all')
    parser.add_argument(
        '--folder', type=Path, default=ROOT / '.stacks', help='for environments and mmcv wheels (%(default)s)'
    )
    # One word per flag: with more, it would take the names of the stacks behind it.
    parser.add_argument(
        '--skip', action='append', default=[], choices=['tests', 'journey'], help='what to leave out; may be repeated'
    )
    parser.add_argument(
        '--pytest',
        default='-m "not slow" -n auto --maxprocesses 8 --dist worksteal tests',
        metavar='ARGUMENTS',
        help="pytest's arguments (%(default)s)",
    )
    parser.add_argument(
        '--failed', action='store_true', help='run again only the tests that failed in the recorded run, and correct it'
    )
    parser.add_argument(
        '--optional', action='store_true', help='pass over a stack that cannot be installed here, and say why'
    )
    parser.add_argument('--no-record', dest='record', action='store_false', help='leave docs/ as it is')
    args = parser.parse_args(words)
    args.named, args.stacks = bool(args.stacks), args.stacks or KNOWN
    unknown = sorted(set(args.stacks) - set(KNOWN))
    if unknown:
        parser.error(f'no stack {unknown[0]!r} in requirements/stacks; there are {", ".join(KNOWN)}')
    return args


def run_tests(stack, arguments, log):
    """Run pytest on the checkout's tests and the installed package, and log each failure with the end of its text.

    Returns:
        dict: Numbers of tests ``passed``, ``failed`` and ``skipped``, the ``failures`` by pytest's names, and the
        ``minutes``.
    """
    start = time.time()
    report = stack.folder / 'tests.xml'
    if report.exists():
        report.unlink()
    with open(stack.folder / 'tests.log', 'w') as output:
        code = subprocess.run(
            [
                str(stack.python),
                str(Path(__file__).with_name('pytest_installed.py')),
                *('-q', '-p', 'no:cacheprovider', '-o', 'junit_family=xunit1', f'--junitxml={report}'),
                *shlex.split(arguments),
            ],
            cwd=str(ROOT),
            env=stack.environment_variables(),
            stdout=output,
            stderr=subprocess.STDOUT,
        ).returncode
    if not report.exists() or code not in RAN_TO_THE_END:
        raise StackError(f'pytest did not run to its end; its output is in {stack.folder / "tests.log"}')
    counts, failures = dict(passed=0, failed=0, skipped=0), []
    for case in xml.etree.ElementTree.parse(report).iter('testcase'):
        failure = next((part for part in case if part.tag in ('failure', 'error')), None)
        if failure is not None:
            counts['failed'] += 1
            failures.append(test_name(case))
            log('\n'.join([f'failed: {failures[-1]}', *(failure.text or '').splitlines()[-LINES_OF_A_FAILURE:]]))
        elif case.find('skipped') is not None:
            counts['skipped'] += 1
        else:
            counts['passed'] += 1
    return dict(counts, failures=failures, minutes=round((time.time() - start) / 60, 1))


def test_name(case):
    """A test of a JUnit report as pytest names it: file, class if it has one, and function."""
    file, name = case.get('file'), case.get('name')
    if not file or not case.get('classname'):  # pytest itself failed, or could not collect the file
        return file or name
    module = file[: -len('.py')].replace('/', '.')
    classes = case.get('classname')[len(module) + 1 :].split('.')
    return '::'.join(filter(None, [file, *classes, name]))


def run_failed_again(stack, older, log):
    """Run the tests that failed in an older run; the numbers of that run, corrected."""
    new = run_tests(stack, shlex.join(older['failures']), log) if older['failures'] else {}
    return dict(
        passed=older['passed'] + new.get('passed', 0),
        failed=new.get('failed', 0),
        skipped=older['skipped'] + new.get('skipped', 0),
        failures=new.get('failures', []),
        minutes=older['minutes'],
        again=older.get('again', 0) + len(older['failures']),
    )


def run_stack(name, args):
    """Everything for one stack; the record of what came out, and whether all of it is well."""

    def log(text):
        print(f'{time.strftime("%H:%M:%S")} {name}: {text}', flush=True)

    stack = Stack(name, args.folder)
    stack.build(log)
    record = dict(description=stack.description, family=stack.mmcv, date=str(datetime.date.today()))
    record['versions'] = stack.versions()
    log(', '.join(f'{module} {version}' for module, version in record['versions'].items()))
    good = True
    if 'journey' not in args.skip:

        def report(step, outcome, seconds):
            log(f'{step}: {outcome} ({seconds:.0f} s)')

        record['journey'] = Journey(stack).run(report)
        good = good and all(outcome == 'ok' for outcome in record['journey'].values())
    if 'tests' not in args.skip:
        older = tables.load().get(name, {}).get('tests')
        if args.failed and not older:
            raise StackError('--failed: no run of the tests is recorded')
        record['tests'] = run_failed_again(stack, older, log) if args.failed else run_tests(stack, args.pytest, log)
        log('{passed} passed, {failed} failed, {skipped} skipped in {minutes} minutes'.format(**record['tests']))
        good = good and record['tests']['failed'] == 0 and record['tests']['passed'] > 0
    return record, good


def main():
    args = parse_args()
    bad = []
    for name in args.stacks:
        try:
            record, good = run_stack(name, args)
        except MissingPythonError as error:
            print(f'{name}: {error}; passed over', flush=True)
            if args.named and not args.optional:
                bad.append(name)
            continue
        except InstallationError as error:
            print(f'{name}: it could not be installed here: {error}', flush=True)
            if args.optional:
                print(f'{name}: passed over', flush=True)
            else:
                bad.append(name)
            continue
        except StackError as error:
            print(f'{name}: {error}', flush=True)
            bad.append(name)
            continue
        if not good:
            bad.append(name)
        if args.record:
            tables.keep(name, record)
    print(tables.journey_table() if args.record else '')
    if bad:
        sys.exit(f'run.py: not everything is well on {", ".join(bad)}')


if __name__ == '__main__':
    main()
