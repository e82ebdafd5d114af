"""Where two models disagree: ``python tools/analysis_tools/compare_predictions.py ANNOTATIONS IMAGES FIRST.segm.json SECOND.segm.json``."""  # noqa: E501

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.disagreements import LEGEND, run
from mmpanet.evaluation.instance_errors import ResultError
from mmpanet.utils.argument_types import fraction, positive_int


def parse_args():
    parser = argparse.ArgumentParser(
        description='Count objects that are found, merged, split, inexact or missed, and false predictions, of two '
        'models, and draw the images on which each is ahead most',
        epilog='The .segm.json come from tools/test.py with --cfg-options test_evaluator.outfile_prefix=FIRST',
    )
    parser.add_argument('annotations', type=Path, help='annotation file in COCO format, with masks')
    parser.add_argument('images', type=Path, help='folder of its images')
    parser.add_argument('results', type=Path, nargs=2, metavar='RESULTS', help='the .segm.json of a model')
    parser.add_argument('--names', nargs=2, default=['first', 'second'], metavar='NAME')
    parser.add_argument(
        '--score-thr',
        type=fraction,
        default=0.5,
        metavar='SCORE',
        help='predictions below it are left out (%(default)s)',
    )
    parser.add_argument('--num-pictures', type=positive_int, default=10, help='for each model (%(default)s)')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs', 'disagreements'), help='(%(default)s)')
    args = parser.parse_args()
    if args.names[0] == args.names[1]:
        parser.error(f'--names {args.names[0]!r} twice: the pictures are put into folders of these names')
    return args


def main():
    args = parse_args()
    try:
        for line in run(
            args.annotations, args.images, args.results, args.names, args.out_dir, args.score_thr, args.num_pictures
        ):
            print(line, flush=True)
    except ResultError as error:
        sys.exit(f'compare_predictions.py: {error}')
    print(LEGEND)


if __name__ == '__main__':
    main()
