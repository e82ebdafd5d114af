"""Evaluate an exported graph: ``python tools/deployment/test_onnx.py CONFIG FOLDER/end2end.onnx``."""

import argparse
import os
import sys
from pathlib import Path

# The threads of GNU OpenMP wait for each other by spinning, which makes a step several times as long on a busy machine.
# It reads these when torch is loaded: docs/troubleshooting.md.
if 'OMP_WAIT_POLICY' not in os.environ:
    os.environ.update(OMP_WAIT_POLICY='PASSIVE', GOMP_SPINCOUNT=os.environ.get('GOMP_SPINCOUNT', '3000'))

import mmpanet  # noqa: E402, F401  registers PANet's modules, whether or not the config imports them
from mmpanet.deploy import GraphDetector
from mmpanet.deploy.export import SETTINGS
from mmpanet.deploy.graph_detector import check_classes, has_inclusive_boxes
from mmpanet.deploy.runtimes import RUNTIMES
from mmpanet.engine.hooks import LevelDistributionHook
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.run_config import check_run_config
from mmpanet.engine.runner import build_runner
from mmpanet.utils.argument_types import positive_int
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ConfigError, MMPanetError


def parse_args():
    parser = argparse.ArgumentParser(description='Evaluate an exported graph on the test data of its config')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('graph', help='path of the graph')
    parser.add_argument(
        '--runtime', choices=list(RUNTIMES), default='onnxruntime', help='what runs the graph (%(default)s)'
    )
    parser.add_argument('--threads', type=positive_int, help='CPU threads (default: the choice of the runtime)')
    add_run_arguments(parser)
    return parser.parse_args()


def test(args):
    cfg = load_run_config(args)
    if cfg.launcher != 'none':
        raise ConfigError(f'--launcher {cfg.launcher}: a graph is evaluated by one process')
    # A graph has no levels that a hook could look at.
    cfg.custom_hooks = [
        hook for hook in cfg.get('custom_hooks') or [] if type_name(hook['type']) != LevelDistributionHook.__name__
    ]
    check_run_config(cfg, 'test')
    check_classes(cfg, args.graph)
    for key in args.cfg_options or ():
        if key.split('.')[0] == 'model' and not key.endswith('.mask_thr_binary'):
            raise ConfigError(
                f'--cfg-options {key}: the graph holds the model as it was exported; leave this out, or export it '
                'again with it'
            )
    settings = Path(args.graph).with_name(SETTINGS)
    rcnn = cfg.model.test_cfg.get('rcnn', {})
    cfg.model = dict(
        type=GraphDetector.__name__,
        graph=args.graph,
        runtime=args.runtime,
        threads=args.threads or 0,
        mask_threshold=rcnn.get('mask_thr_binary', 0.5),
        # The graph's own file says it, which graphs of other models can do without.
        inclusive_boxes=None if has_inclusive_boxes(cfg) or settings.is_file() else False,
    )
    cfg.load_from = None
    cfg.resume = False
    build_runner(cfg).test()


def main():
    try:
        test(parse_args())
    except MMPanetError as error:
        sys.exit(f'test_onnx.py: {error}')


if __name__ == '__main__':
    main()
