# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Compare the graphs of all RoI heads with PyTorch, on images and with trained weights. It prints a table.

    python .dev_scripts/graph_differences.py data/dsb2018/images --runtime onnxruntime openvino

The weights are those of ``docs/results/weights``. The heads of mmdet have those of the FPN: ``DynamicRoIHead`` and
``PISARoIHead`` have its parameters, and ``CascadeRoIHead`` has its box head in each of three stages.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmpanet  # noqa: F401  registers the modules
from mmdet.registry import MODELS
from mmpanet.apis.prediction import find_images
from mmpanet.checkpoints.files import load_untrusted
from mmpanet.deploy import compare_detections, export_detector
from mmpanet.deploy.runtimes import RUNTIMES
from mmpanet.utils.environment import environment_summary
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
STAGES = 3
FPN, PANET = 'mask-rcnn_r18_fpn_48e_dsb2018', 'mask-rcnn_r18_panet-level-sum_48e_dsb2018'
# RoI heads, and the config whose weights they have.
HEADS = {
    'PANetRoIHead': PANET,
    'StandardRoIHead': FPN,
    'CascadeRoIHead': FPN,
    'DynamicRoIHead': FPN,
    'PISARoIHead': FPN,
}
TRAIN_CFG = {
    'DynamicRoIHead': dict(
        dynamic_rcnn=dict(iou_topk=75, beta_topk=10, update_iter_interval=100, initial_iou=0.4, initial_beta=1.0)
    ),
    'PISARoIHead': dict(isr=dict(k=2, bias=0), carl=dict(k=1, bias=0.2)),
}


def config_of(kind):
    """The config of a trained model with another RoI head of the same parts."""
    cfg = Config.fromfile(ROOT / 'configs' / 'dsb2018' / 'ablation' / f'{HEADS[kind]}.py')
    roi_head, train_cfg = cfg.model.roi_head, cfg.model.train_cfg
    roi_head.type = kind
    train_cfg.rcnn.update(TRAIN_CFG.get(kind, {}))
    if kind == 'DynamicRoIHead':
        roi_head.bbox_head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0)
    if kind == 'CascadeRoIHead':
        roi_head.update(num_stages=STAGES, stage_loss_weights=[1.0] * STAGES)
        train_cfg.rcnn = [train_cfg.rcnn] * STAGES
    return cfg


def weights_of(kind):
    """The parameters of a trained model, by the names that they have under the RoI head."""
    state = load_untrusted(ROOT / 'docs' / 'results' / 'weights' / f'{HEADS[kind]}.pth')['state_dict']
    if kind != 'CascadeRoIHead':
        return state
    parts = ('roi_head.bbox_head.', 'roi_head.mask_head.')
    renamed = {name: value for name, value in state.items() if not name.startswith(parts)}
    for name, value in state.items():
        for part in parts:
            if name.startswith(part):
                renamed.update({f'{part}{stage}.{name[len(part) :]}': value for stage in range(STAGES)})
    return renamed


def rows(images, runtimes):
    init_default_scope('mmdet')
    for kind in HEADS:
        cfg = config_of(kind)
        model = MODELS.build(cfg.model)
        model.load_state_dict(weights_of(kind))
        with tempfile.TemporaryDirectory() as folder:
            export_detector(model.eval(), cfg, folder)
            for runtime in runtimes:
                found = compare_detections(model, cfg, folder, images, runtime)
                yield [
                    f'`{kind}`',
                    runtime,
                    f'{found.detections}, {found.matched}',
                    found.extra,
                    *(f'{value:.1e}' for value in (found.bboxes, found.scores, found.masks)),
                ]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=Path, nargs='+', help='images, or folders of them')
    parser.add_argument('--count', type=int, default=20, help='how many, spread evenly (%(default)s)')
    parser.add_argument('--runtime', nargs='+', choices=list(RUNTIMES), default=['onnxruntime'], help='(%(default)s)')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    try:
        images = find_images(args.images)
        images = images[:: max(1, len(images) // args.count)][: args.count]
        print(', '.join(f'{key} {value}' for key, value in environment_summary('cpu').items()))
        columns = ['RoI head', 'runtime', 'objects of PyTorch, found by the graph', 'found by the graph alone']
        columns += ['boxes, pixels', 'scores', 'share of mask pixels']
        print(f'{len(images)} images\n\n{markdown_table(list(rows(images, args.runtime)), columns)}')
    except MMPanetError as error:
        sys.exit(f'graph_differences.py: {error}')


if __name__ == '__main__':
    main()
