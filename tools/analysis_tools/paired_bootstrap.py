"""Say how sure the difference in AP of two models is: a paired bootstrap over images, and over seeds of the training.

``python tools/analysis_tools/paired_bootstrap.py ANNOTATIONS FIRST.segm.json --against SECOND.segm.json``
"""

import argparse
import sys
from pathlib import Path

from mmpanet.evaluation.paired_bootstrap import bootstrap_table, paired_bootstrap
from mmpanet.utils.argument_types import non_negative_int, positive_int
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.files import make_place_for, write_json


def parse_args():
    parser = argparse.ArgumentParser(
        description='Compare the AP of two models on the same images. The images are drawn many times with '
        'replacement, and the interval holds 95 percent of the differences. It says what other images would change, '
        'and with one file per model nothing about another seed of the training. With a file per seed the seeds are '
        'drawn too.',
        epilog='tools/test.py writes the result files with --cfg-options test_evaluator.outfile_prefix=FIRST',
    )
    parser.add_argument('annotations', type=Path, help='annotation file in COCO format')
    parser.add_argument(
        'first',
        type=Path,
        nargs='+',
        metavar='RESULTS',
        help='.segm.json (masks) or .bbox.json (boxes) of a model, one per seed of its training',
    )
    parser.add_argument(
        '--against', type=Path, nargs='+', required=True, metavar='RESULTS', help='the same of the other model'
    )
    parser.add_argument('--names', nargs=2, default=['first', 'second'], metavar='NAME', help='names of the models')
    parser.add_argument(
        '--classes',
        nargs='+',
        default=[],
        metavar='NAME',
        help='the categories that count, if the models do not know all of the annotation file',
    )
    parser.add_argument('--resamples', type=positive_int, default=1000, help='draws (default: %(default)s)')
    parser.add_argument('--seed', type=non_negative_int, default=0, help='of the draws (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='JSON file for the result')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        if args.out:
            make_place_for(args.out, '--out')
        results = paired_bootstrap(args.annotations, args.first, args.against, args.resamples, args.seed, args.classes)
    except MMPanetError as error:
        sys.exit(f'paired_bootstrap.py: {error}')
    print(bootstrap_table(results, args.names))
    if args.out:
        content = [dict(**one._asdict(), difference=one.difference) for one in results]
        write_json(args.out, content)
        print(args.out)


if __name__ == '__main__':
    main()
