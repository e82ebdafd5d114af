# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Make a checkpoint of mmdet's ResNet out of a ResNet in an ONNX file, for ``backbone.init_cfg``."""

import argparse
import sys

from mmpanet.checkpoints.files import check_paths, save_checkpoint
from mmpanet.checkpoints.onnx_resnet import compare_features, read_onnx_resnet
from mmpanet.utils.errors import CheckpointError, MMPanetError

LARGEST_DIFFERENCE = 1e-4


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='the ONNX file')
    parser.add_argument('target', help='the checkpoint to write')
    return parser.parse_args()


def main():
    args = parse_args()
    check_paths(args.source, args.target)
    resnet = read_onnx_resnet(args.source)
    differences = compare_features(args.source, resnet)
    for stage, difference in enumerate(differences, 1):
        print(f'stage {stage}: largest difference to onnxruntime {difference:.1e} of the largest value')
    if not all(difference <= LARGEST_DIFFERENCE for difference in differences):  # NaN is no match either
        raise CheckpointError(f'{args.source}: features differ by more than {LARGEST_DIFFERENCE}; nothing was written')
    save_checkpoint(dict(state_dict=resnet.state_dict), args.target)
    if resnet.pool_pads != (1, 1, 1, 1):
        print(
            f"its max pooling pads by {resnet.pool_pads}, mmdet's by (1, 1, 1, 1): maps shift by one pixel of the stem"
        )
    print(f'{args.target}: goes with')
    settings = ', '.join(f'{key}={value!r}' for key, value in resnet.backbone.items())
    print(f"backbone=dict({settings}, init_cfg=dict(type='Pretrained', checkpoint={args.target!r}))")


if __name__ == '__main__':
    try:
        main()
    except (MMPanetError, OSError) as error:
        sys.exit(f'onnx_resnet.py: {error}')
