"""Show where two models disagree: counts of errors by kind, and pictures.

``python tools/analysis_tools/compare_predictions.py ANNOTATIONS IMAGES FIRST.segm.json SECOND.segm.json``
"""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.disagreements import LEGEND, compare_predictions
from mmpanet.utils.argument_types import fraction, positive_int
from mmpanet.utils.errors import MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(
        description='Count the objects that two models find, merge, split, outline inexactly or miss, and their false '
        'predictions, and draw the images on which each model is ahead most',
        epilog='tools/test.py writes the .segm.json files with --cfg-options test_evaluator.outfile_prefix=FIRST',
    )
    parser.add_argument('annotations', type=Path, help='annotation file in COCO format, with masks')
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('results', type=Path, nargs=2, metavar='RESULTS', help='.segm.json file of a model')
    parser.add_argument('--names', nargs=2, default=['first', 'second'], metavar='NAME', help='names of the models')
    parser.add_argument(
        '--score-thr',
        type=fraction,
        default=0.5,
        metavar='SCORE',
        help='predictions with a lower score are left out (default: %(default)s)',
    )
    parser.add_argument(
        '--num-pictures', type=positive_int, default=10, help='number for each model (default: %(default)s)'
    )
    parser.add_argument(
        '--classes', nargs='+', default=[], metavar='NAME', help='the classes of the models, if the file has more'
    )
    parser.add_argument('--out-dir', type=Path, default=Path('outputs', 'disagreements'), help='(default: %(default)s)')
    args = parser.parse_args()
    if args.names[0] == args.names[1]:
        parser.error(f'--names {args.names[0]!r} twice: the pictures go into folders of these names')
    return args


def main():
    args = parse_args()
    try:
        for line in compare_predictions(
            args.annotations,
            args.images,
            args.results,
            args.names,
            args.out_dir,
            args.score_thr,
            args.num_pictures,
            args.classes,
        ):
            print(line, flush=True)
    except (MMPanetError, OSError) as error:
        sys.exit(f'compare_predictions.py: {error}')
    print(LEGEND)


if __name__ == '__main__':
    main()
