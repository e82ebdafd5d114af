"""Say how a run ended: box and mask AP, and where its checkpoint, logs and pictures are."""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.run_report import run_report
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dir', type=Path, help='work folder of a run of tools/train.py or tools/test.py')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        print(f'\n{run_report(args.work_dir)}')
    except MMPanetError as error:
        sys.exit(f'report_run.py: {error}')


if __name__ == '__main__':
    main()
