# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Put PANet into a model that has an FPN: ``python tools/model_converters/swap_neck.py CONFIG``, see docs/swap.md."""

import argparse
import sys
from dataclasses import fields

from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.models.layers.levelwise_fusion import LEVEL_FUSIONS
from mmpanet.models.panet_neck import NECK_FUSIONS
from mmpanet.swap import swap_checkpoint, verify, write_config
from mmpanet.swap.config import leave_out_run, plan_swap, start_from
from mmpanet.swap.options import OFFICIAL_SAMPLING_RATIO, SwapOptions
from mmpanet.swap.written_config import check_config_target, config_diff
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import MMPanetError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Put PANet into a config whose model has an FPN, and into the checkpoint of this model.'
    )
    parser.add_argument(
        'config', help='path of the config, or a name such as mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
    )
    parser.add_argument('--out', help='the config to write (.py)')
    parser.add_argument(
        '--roi-head',
        action='store_true',
        help='also swap the RoI head: adaptive feature pooling, PANet heads, fully-connected fusion',
    )
    parser.add_argument(
        '--roi-head-only',
        action='store_true',
        help='swap the RoI head, and leave the neck as it is; it may be any neck',
    )
    parser.add_argument(
        '--warm-start',
        action='store_true',
        help='start the new path without an effect, so that the neck starts with the outputs of the FPN',
    )
    parser.add_argument(
        '--grow',
        action='store_true',
        help='start with the outputs of the old model, in the RoI heads too (with --roi-head or --roi-head-only): '
        'gates open the new path and the other levels in training',
    )
    parser.add_argument(
        '--fusion',
        choices=NECK_FUSIONS,
        default='sum',
        help='how the new path is fused with the FPN levels; default: sum',
    )
    parser.add_argument(
        '--level-fusion',
        choices=LEVEL_FUSIONS,
        default='max',
        help='with --grow: how the heads fuse the levels; default: max, as in the paper',
    )
    parser.add_argument(
        '--sampling-ratio',
        type=int,
        metavar='N',
        help='with --roi-head or --roi-head-only: number of samples per bin along each axis, where the config derives '
        f'it from the size of the RoI; 0 keeps this; default: 0 with --grow, and {OFFICIAL_SAMPLING_RATIO} otherwise',
    )
    parser.add_argument(
        '--checkpoint', metavar='IN.pth', help='checkpoint of the old model, or `trained` for the weights of its config'
    )
    parser.add_argument('--out-checkpoint', metavar='OUT.pth', help='the checkpoint of the new model to write')
    parser.add_argument('--dry-run', action='store_true', help='show the changes and write nothing')
    parser.add_argument(
        '--verify',
        action='store_true',
        help='run both models on an image, and print the differences of all outputs and the costs',
    )
    parser.add_argument('--image', help='the image for --verify; by default a generated one')
    args = parser.parse_args()
    if args.out_checkpoint and not args.checkpoint:
        parser.error('--out-checkpoint needs --checkpoint')
    if args.checkpoint and not (args.out_checkpoint or args.verify):
        parser.error('--checkpoint needs --out-checkpoint or --verify')
    if args.grow and args.warm_start:
        parser.error('--grow and --warm-start are two ways to start as the old model: choose one')
    if args.roi_head_only and (args.warm_start or args.fusion != 'sum'):
        parser.error('--roi-head-only leaves the neck as it is, and --warm-start and --fusion are settings of the neck')
    if args.level_fusion != 'max' and not (args.grow and (args.roi_head or args.roi_head_only)):
        parser.error('--level-fusion is a setting of --grow with --roi-head or --roi-head-only')
    if args.sampling_ratio is not None and not (args.roi_head or args.roi_head_only):
        parser.error('--sampling-ratio is a setting of --roi-head and --roi-head-only')
    if args.image and not args.verify:
        parser.error('--image needs --verify')
    if not (args.out or args.dry_run or args.verify or args.out_checkpoint):
        parser.error('nothing to do: give --out, --out-checkpoint, --dry-run or --verify')
    return args


def main() -> None:
    args = parse_args()
    if args.out:
        check_config_target(args.out, args.config)
    cfg = load_config(args.config)
    if args.checkpoint:
        args.checkpoint = resolve_checkpoint(args.checkpoint, args.config)
    options = {field.name: getattr(args, field.name) for field in fields(SwapOptions) if field.name != 'check_channels'}
    swap = plan_swap(cfg, SwapOptions(**options, check_channels=True))
    leave_out_run(swap)
    for path in swap.models:
        where = '.'.join(path)
        if args.roi_head_only:
            print(f'{where}.neck stays, and the heads of {where}.roi_head are those of PANet now')
        else:
            print(f'{where}.neck is a PANetNeck now')
    if args.out_checkpoint:
        out = None if args.dry_run else args.out_checkpoint
        _, carried = swap_checkpoint(args.checkpoint, cfg, swap.config, out)
        print(
            f'\n{args.out_checkpoint}:\n{carried.report()}\nleft out: the states of the optimizer, the schedulers and '
            'the logs, which belong to the old run\n'
        )
        start_from(swap, args.out_checkpoint, carried.path)
    for note in swap.notes:
        print(f'note: {note}')
    if args.dry_run:
        print(config_diff(cfg, swap.config))
    elif args.out:
        print(f'\n{args.out}:\n{write_config(swap.config, args.config, args.out)}', end='')
    if args.verify:
        print()
        print(verify(cfg, swap.config, args.checkpoint, args.image).report())


if __name__ == '__main__':
    try:
        main()
    except (MMPanetError, OSError) as error:
        sys.exit(f'swap_neck.py: {error}')
