"""Train configs over seeds and make a table: ``python tools/analysis_tools/experiments.py CONFIG ...``."""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.experiments import ExperimentError, Launcher, Results, plan, run_all
from mmpanet.evaluation.results_table import markdown, summarise, write
from mmpanet.utils.argument_types import positive_int


def parse_args():
    parser = argparse.ArgumentParser(
        description='Train configs over seeds. What has finished is not done again, and '
        'what was cut off goes on from its last checkpoint.'
    )
    parser.add_argument('configs', nargs='+', type=Path, help='paths of the configs, in the order of the table')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='by default 0 alone')
    parser.add_argument(
        '--results',
        type=Path,
        default=Path('work_dirs/experiments/results.jsonl'),
        help='file of one line a run, which is added to; the table goes beside it',
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/experiments'), help='for logs and checkpoints')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='overrides for all configs; each choice of them is an experiment of its own',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm'], default='none')
    parser.add_argument('--gpus', type=positive_int, default=1, help='with --launcher pytorch; slurm reads $GPUS')
    parser.add_argument('--partition', default='', help='with --launcher slurm')
    parser.add_argument('--dry-run', action='store_true', help='show what would be run')
    parser.add_argument('--table', action='store_true', help='only make the table of what has finished')
    parser.add_argument(
        '--no-times',
        dest='times',
        action='store_false',
        help='leave the time a step out of the table: it says nothing where the machine had other work',
    )
    parser.add_argument(
        '--variants',
        action='store_true',
        help='rows also for the runs with --cfg-options; the table is named ..._variants',
    )
    args = parser.parse_args()
    if args.launcher == 'slurm' and not args.partition:
        parser.error('--launcher slurm needs --partition')
    return args


def main():
    args = parse_args()
    results = Results(args.results)
    launcher = Launcher(args.launcher, args.gpus, args.partition, Path(__file__).resolve().parent)
    failures = 0
    if not args.table:
        runs = plan(args.configs, args.seeds, results, args.cfg_options)
        if args.dry_run:
            for run in runs:
                print(*launcher.command(run, run.work_dir(args.work_dir)))
            return 0
        failures = run_all(runs, results, args.work_dir, launcher, lambda line: print(line, flush=True))
    variants = args.variants or bool(args.cfg_options)
    summaries = summarise(results, [config.stem for config in args.configs], variants)
    print(markdown(summaries, args.times))
    stem = args.results.stem + ('_variants' if variants else '')
    print(*write(summaries, args.results.parent, stem, args.times), sep='\n')
    return 1 if failures else 0


if __name__ == '__main__':
    try:
        sys.exit(main())
    except ExperimentError as error:
        sys.exit(f'experiments.py: {error}')
