"""Make a table and a plot of the logs of runs: ``python tools/analysis_tools/compare_runs.py WORK_DIR ...``."""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.experiments import ExperimentError
from mmpanet.evaluation.run_comparison import markdown, read_runs, write


def parse_args():
    parser = argparse.ArgumentParser(
        description='AP (of the last evaluation, and the best), parameters, time a step '
        'and memory of several runs, and their curves'
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='of runs of tools/train.py; differences are to the first',
    )
    parser.add_argument('--names', nargs='+', default=[], help='for the table, one a folder')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs', 'comparison'),
        help='gets comparison.md, .json and .png (%(default)s)',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        runs = read_runs(args.work_dirs, args.names)
    except ExperimentError as error:
        sys.exit(f'compare_runs.py: {error}')
    print(markdown(runs))
    print(*write(runs, args.out_dir), sep='\n')


if __name__ == '__main__':
    main()
