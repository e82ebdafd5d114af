"""Write the weights of a checkpoint alone: ``python tools/model_converters/publish_model.py IN.pth OUT.pth``."""

import argparse
import sys
from pathlib import Path

from mmpanet.checkpoints.publishing import publish
from mmpanet.utils.errors import MMPanetError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write the weights of a checkpoint, with its config and classes, '
        'without the state of optimizer, schedulers and logs'
    )
    parser.add_argument('source', metavar='IN.pth', help='a checkpoint of training')
    parser.add_argument('target', metavar='OUT.pth', help='the file to write')
    parser.add_argument('--half', action='store_true', help='write float16, which halves the size')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        weights = publish(args.source, args.target, args.half)
    except (MMPanetError, OSError) as error:
        sys.exit(f'publish_model.py: {error}')
    sizes = [Path(path).stat().st_size / 1e6 for path in (args.source, args.target)]
    print(f'{args.target}: {len(weights)} tensors, {sizes[1]:.1f} MB of {sizes[0]:.1f} MB')


if __name__ == '__main__':
    main()
