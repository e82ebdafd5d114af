# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Convert a checkpoint of the official PANet code for mmdet, or back."""

import argparse
import sys

from mmpanet.checkpoints.official_conversion import convert_file
from mmpanet.checkpoints.official_rules import CONFIGS, rules
from mmpanet.utils.errors import MMPanetError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='the official .pth (with --reverse: one of mmpanet)')
    parser.add_argument('target', help='the file to write')
    parser.add_argument('--reverse', action='store_true', help='convert one of mmpanet to the official form')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        kind = convert_file(args.source, args.target, args.reverse)
    except (MMPanetError, OSError) as error:
        print(f'convert_official_checkpoint: {error}', file=sys.stderr)
        sys.exit(2)
    print(
        f'{args.source}: the official model {kind!r}; all of its {len(rules(kind))} tensors converted, '
        'none left over on either side'
    )
    if args.reverse:
        print(f"{args.target}: in the official form, for --load_ckpt of the authors' tools")
    else:
        print(f'{args.target}: goes with configs/official/{CONFIGS[kind]}')


if __name__ == '__main__':
    main()
