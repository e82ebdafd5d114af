"""Compare runs by their logs, in a table and a plot: ``python tools/analysis_tools/compare_runs.py WORK_DIR ...``."""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.run_comparison import comparison_table, read_runs, write_comparison
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare several runs: AP of the last and of the best evaluation, parameters, seconds per step, '
        'memory, and the curves of loss and AP'
    )
    parser.add_argument(
        'work_dirs',
        nargs='+',
        type=Path,
        metavar='WORK_DIR',
        help='work folders of tools/train.py; AP is also given as the difference to the first',
    )
    parser.add_argument('--names', nargs='+', default=[], help='names for the table, one per folder')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs', 'comparison'),
        help='folder for comparison.md, .json and .png (default: %(default)s)',
    )
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        runs = read_runs(args.work_dirs, args.names)
        print(comparison_table(runs))
        print(*write_comparison(runs, args.out_dir), sep='\n')
    except MMPanetError as error:
        sys.exit(f'compare_runs.py: {error}')


if __name__ == '__main__':
    main()
