"""Train configs with several seeds, one run after another, and make a table of the results.

``python tools/analysis_tools/experiments.py CONFIG ... --seeds 0 1 2``
"""

import argparse
import shlex
import sys
from pathlib import Path

from mmpanet.evaluation.experiments import Launcher, Results, plan_runs, run_all
from mmpanet.evaluation.seed_summary import seed_table, summarize_seeds, write_seed_summary
from mmpanet.utils.argument_types import positive_int
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import make_folder, make_place_for


def parse_args():
    parser = argparse.ArgumentParser(
        description='Train configs with several seeds. A run that has finished is not repeated, and a run that was cut '
        'off goes on from its last checkpoint.'
    )
    parser.add_argument('configs', nargs='+', type=Path, help='paths of the configs, in the order of the table')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='(default: 0)')
    parser.add_argument(
        '--results',
        type=Path,
        default=Path('work_dirs/experiments/results.jsonl'),
        help='file with one line per run, to which lines are added; the table of these configs goes into the same '
        'folder, if any of them was trained (default: %(default)s)',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/experiments'),
        help='folder for logs and checkpoints (default: %(default)s)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='overrides for all configs; a config with other overrides is another experiment',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument('--gpus', type=positive_int, default=1, help='with --launcher pytorch; slurm reads $GPUS')
    parser.add_argument('--partition', default='', help='with --launcher slurm')
    parser.add_argument('--dry-run', action='store_true', help='print the commands and run nothing')
    parser.add_argument('--table', action='store_true', help='only make the table of the runs that have finished')
    parser.add_argument(
        '--no-times',
        dest='times',
        action='store_false',
        help='leave out the seconds per step, which mean nothing if the machine did other work at the same time',
    )
    parser.add_argument(
        '--variants',
        action='store_true',
        help='add rows for the runs with --cfg-options; the name of the table then ends in _variants',
    )
    args = parser.parse_args()
    if args.launcher == 'slurm' and not args.partition:
        parser.error('--launcher slurm needs --partition')
    return args


def main():
    args = parse_args()
    try:
        sys.exit(run(args))
    except MMPanetError as error:
        sys.exit(f'experiments.py: {error}')


def run(args):
    if not args.dry_run:
        make_place_for(args.results, '--results')
    results = Results(args.results)
    launcher = Launcher(args.launcher, args.gpus, args.partition, Path(__file__).resolve().parents[1])
    failures, runs = 0, []
    if not args.table:
        runs = plan_runs(args.configs, args.seeds, results, args.cfg_options)
        if args.dry_run:
            for one in runs:
                print(shlex.join(launcher.command(one, one.work_dir(args.work_dir))))
            return 0
        make_folder(args.work_dir, '--work-dir')
        failures = run_all(runs, results, args.work_dir, launcher, lambda line: print(line, flush=True))
    variants = args.variants or bool(args.cfg_options)
    summaries = summarize_seeds(results, [config.stem for config in args.configs], variants)
    print(seed_table(summaries, args.times))
    if not (runs or args.table):
        print('all of these runs were there, so no file was written; --table writes them')
        return 0
    stem = args.results.stem + ('_variants' if variants else '')
    print(*write_seed_summary(summaries, args.results.parent, stem, args.times), sep='\n')
    return 1 if failures else 0


if __name__ == '__main__':
    main()
