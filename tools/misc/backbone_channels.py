# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Print the channels of a backbone's maps: ``python tools/misc/backbone_channels.py CONFIG``.

They are what ``in_channels`` of the neck must be. The exit code is 1 if it is something else.
"""

import argparse
import sys

import mmpanet  # noqa: F401  registers what the config may name
from mmpanet.swap.backbone_channels import backbone_maps, wrong_in_channels
from mmpanet.swap.model_search import find_models
from mmpanet.utils.argument_types import add_cfg_options
from mmpanet.utils.configs import load_config, type_name
from mmpanet.utils.errors import ConfigError, MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(
        description='Print the channels and strides of the maps that the backbone of a config gives, and compare them '
        'with in_channels of the neck. The exit code is 1 if in_channels is wrong.'
    )
    parser.add_argument('config', help='path of the config, or a name such as mmdet::...')
    add_cfg_options(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    models = [
        (path, model) for path, model in find_models(cfg.get('model')) if model.get('backbone') and model.get('neck')
    ]
    if not models:
        raise ConfigError(f'config {args.config}: no model in it has a backbone and a neck')
    wrong = 0
    for path, model in models:
        where = '.'.join(path)
        maps = backbone_maps(cfg, path)
        backbone = type_name(model['backbone']['type'])
        print(f'{where}.backbone ({backbone}): in_channels={maps.channels}, strides {maps.strides}')
        neck = wrong_in_channels(model, maps.channels)
        if neck is not None:
            wrong = 1
            print(
                f'{where}.neck ({type_name(neck["type"])}) has in_channels={neck.get("in_channels")}, '
                'which does not fit'
            )
    return wrong


if __name__ == '__main__':
    try:
        sys.exit(main())
    except MMPanetError as error:
        sys.exit(f'backbone_channels.py: {error}')
