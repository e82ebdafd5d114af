# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write a two-stage detector as ONNX graphs, with a runtime that needs no PyTorch. See docs/deploy.md."""

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction

from mmdet.apis import init_detector
from mmpanet.deploy import ExportError, export_detector, verify
from mmpanet.utils.configs import load_config


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--out', required=True, help='folder for the graphs, detector.json and onnx_detector.py')
    parser.add_argument(
        '--verify',
        nargs='+',
        metavar='IMAGE',
        help='run these images in PyTorch and in onnxruntime, and print the largest differences',
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main():
    args = parse_args()
    for path in (args.checkpoint, *(args.verify or ())):
        if not Path(path).is_file():
            sys.exit(f'{path}: no such file')
    cfg = load_config(args.config, args.cfg_options)
    model = init_detector(cfg, args.checkpoint, device='cpu')
    try:
        files = export_detector(model, cfg, args.out)
    except ExportError as error:
        sys.exit(f'{args.config}: {error}')
    for path in files:
        print(f'{path}  {path.stat().st_size / 2**20:.1f} MiB')
    if args.verify:
        for name, value in verify(model, cfg, args.out, args.verify).items():
            print(f'{name:12} {value:.3g}')


if __name__ == '__main__':
    main()
