"""Which levels adaptive feature pooling takes its features from: ``python tools/analysis_tools/level_distribution.py CONFIG CHECKPOINT``."""  # noqa: E501

import argparse
import sys
from pathlib import Path

import mmpanet  # noqa: F401  registers PANet's modules, whether or not the config imports them
from mmpanet.apis import find_images, load_inferencer
from mmpanet.apis.level_pictures import images_of_test_data, write_level_pictures
from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.utils.argument_types import add_cfg_options, positive_int
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import MMPanetError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw the paper's Figure 3 for a trained model, and the pyramid and "
        'the winning level of each RoI on some images'
    )
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of a checkpoint, or `trained` for the weights of the config')
    parser.add_argument(
        'inputs',
        nargs='*',
        type=Path,
        metavar='INPUT',
        help="images or folders of them; by default the first ones of the config's test data",
    )
    parser.add_argument(
        '--out-dir', type=Path, default=Path('outputs', 'levels'), help='folder to write to (%(default)s)'
    )
    parser.add_argument(
        '--num-images', type=positive_int, default=20, help='images of the test data that are used (%(default)s)'
    )
    parser.add_argument(
        '--num-pictures', type=positive_int, help='images that are drawn (3 of the test data, or all that are named)'
    )
    parser.add_argument(
        '--max-rois', type=positive_int, default=50, help='RoIs that are drawn for each head and image (%(default)s)'
    )
    parser.add_argument('--device', help='device, such as cuda:0 or cpu (default: a GPU if there is one)')
    add_cfg_options(parser)
    return parser.parse_intermixed_args()  # inputs may follow options


def main() -> None:
    args = parse_args()
    try:
        cfg = load_config(args.config, args.cfg_options)
        images = find_images(args.inputs) if args.inputs else images_of_test_data(cfg, args.num_images)
        inferencer = load_inferencer(cfg, resolve_checkpoint(args.checkpoint, args.config), args.device)
        num_pictures = args.num_pictures or (len(images) if args.inputs else 3)
        for line in write_level_pictures(inferencer, images, args.out_dir, num_pictures, args.max_rois):
            print(line, flush=True)
    except MMPanetError as error:
        sys.exit(f'level_distribution.py: {error}')


if __name__ == '__main__':
    main()
