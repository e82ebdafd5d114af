"""Evaluate a checkpoint: ``python tools/test.py CONFIG CHECKPOINT`` or ``mim test mmpanet CONFIG -C CHECKPOINT``."""

import argparse
import os
import sys
from copy import deepcopy

# GNU OpenMP reads this once, when torch is loaded. By default its threads spin while they wait for each other, and a
# step takes several times as long on a busy machine: docs/troubleshooting.md.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

import mmpanet  # noqa: E402, F401  registers PANet's modules, whether or not the config imports them
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmpanet.engine.run_arguments import add_run_arguments, load_run_config
from mmpanet.engine.runner.checking_runner import build_runner


def parse_args():
    parser = argparse.ArgumentParser(description='Evaluate a detector on the test data of its config')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the checkpoint')
    add_run_arguments(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions into this pickle file')
    parser.add_argument('--show', action='store_true', help='show each picture in a window')
    parser.add_argument(
        '--show-dir',
        metavar='DIR',
        help='write pictures of ground truth and predictions side by side into <work folder>/<time>/DIR',
    )
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show shows a picture for')
    parser.add_argument(
        '--tta',
        action='store_true',
        help="augment at test time (boxes only), by the config's "
        'tta_model and tta_pipeline where it has them, else with a horizontal flip',
    )
    args = parser.parse_args()
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out takes a file that ends in .pkl or .pickle, not {args.out!r}')
    return args


def use_test_time_augmentation(cfg):
    """Wrap the model and the test pipeline; mmdet's ``DetTTAModel`` merges boxes and no masks."""
    if 'tta_model' not in cfg and cfg.model.get('roi_head', {}).get('mask_head'):
        sys.exit(
            'test.py: --tta merges boxes only, and this model predicts masks. Leave them out: --cfg-options '
            'model.roi_head.mask_head=None model.roi_head.mask_roi_extractor=None test_evaluator.metric=bbox'
        )
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:  # a wrapper, such as RepeatDataset
        dataset = dataset.dataset
    if 'tta_pipeline' not in cfg:
        flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
        pack = dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
        )
        cfg.tta_pipeline = [*deepcopy(dataset.pipeline[:-1]), dict(type='TestTimeAug', transforms=[flips, [pack]])]
    tta_model = cfg.get(
        'tta_model', dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    )
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(**tta_model, module=cfg.model)


def main():
    args = parse_args()
    cfg = load_run_config(args)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        trigger_visualization_hook(cfg, args)
    if args.tta:
        use_test_time_augmentation(cfg)
    runner = build_runner(cfg)
    if args.out:
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
