# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Write the configs that compare the ways to go on from a trained FPN: train it further, swap at once, or grow.

    python .dev_scripts/growth.py CONFIG CHECKPOINT --epochs 3 --lr 5e-4 --out-dir work_dirs/growth

It writes one config and one checkpoint per way into the folder, and prints the paths of the configs. Give these to
``tools/analysis_tools/experiments.py``: it trains them with several seeds, and draws the curves of AP.

| way | what it is |
| --- | --- |
| ``fpn`` | the FPN, trained on |
| ``swapped`` | ``swap_neck.py --roi-head --warm-start``, levels fused by max |
| ``grown-max``, ``grown-sum`` | ``swap_neck.py --roi-head --grow --level-fusion max`` or ``sum`` |
| ``identity-max``, ``identity-sum`` | grown, but the neck has the identity start of ``--warm-start`` in place of gates,
and the layers behind the gates of the heads have the full learning rate |
| ``neck`` | the neck alone, with the identity start of ``--warm-start`` |
| ``neck-gate`` | the neck alone, with ``--grow`` |
| ``heads`` | the heads alone, with ``--roi-head-only --grow --level-fusion sum`` |
| ``boxes``, ``masks`` | the box branch or the mask branch alone, grown in the same way |
| ``fusion`` | the FPN with fully-connected fusion alone, which starts without an effect |
| ``panet`` | CONFIG and CHECKPOINT are those of a PANet, which is trained on |
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import Config
from mmengine.model import normal_init
from mmengine.runner import save_checkpoint, set_random_seed

from mmpanet.checkpoints.trained import resolve_checkpoint
from mmpanet.models.layers import GATE_PARAMETERS
from mmpanet.swap import swap_checkpoint
from mmpanet.swap.checkpoint import read_checkpoint
from mmpanet.swap.config import WARM_START, Swap, plan_swap, start_from
from mmpanet.swap.growth import gated_layers
from mmpanet.swap.options import SwapOptions
from mmpanet.swap.warm_start import FC_BRANCH_BIAS, neutralize_fc_branches
from mmpanet.utils.configs import load_config
from mmpanet.utils.errors import MMPanetError
from mmpanet.utils.model_building import build_model

HEADS = dict(roi_head_only=True, grow=True, level_fusion='sum')
WAYS = {
    'fpn': {},
    'swapped': dict(roi_head=True, warm_start=True),
    'grown-max': dict(roi_head=True, grow=True),
    'grown-sum': dict(roi_head=True, grow=True, level_fusion='sum'),
    'identity-max': dict(roi_head=True, grow=True),
    'identity-sum': dict(roi_head=True, grow=True, level_fusion='sum'),
    'neck': dict(warm_start=True),
    'neck-gate': dict(grow=True),
    'heads': HEADS,
    'boxes': HEADS,
    'masks': HEADS,
    'fusion': {},
}
KEPT_PARTS = {'boxes': ('mask_roi_extractor', 'mask_head'), 'masks': ('bbox_roi_extractor', 'bbox_head')}
WITH_GATES = [way for way in WAYS if WAYS[way].get('grow')]
WITH_LEVELS = [way for way in WITH_GATES if way != 'neck-gate']
WITH_FUSION = ['swapped', 'fusion', *(way for way in WITH_LEVELS if way != 'boxes')]
LAYERS_OF_PATH = ('downsample_convs', 'bottom_up_convs')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the trained model, or of a PANet that is trained on as it is')
    parser.add_argument('checkpoint', help='path of its checkpoint, or `trained` for the weights of the config')
    parser.add_argument('--ways', nargs='+', choices=[*WAYS, 'panet'], default=list(WAYS)[:4])
    parser.add_argument('--epochs', type=int, default=3)
    parser.add_argument('--lr', default='5e-4', help='the largest learning rate of the schedule; default: 5e-4')
    parser.add_argument('--sgd', action='store_true', help="MMDetection's SGD in place of the optimizer of the config")
    parser.add_argument(
        '--train-norm',
        action='store_true',
        help='let the statistics of the BN layers of the backbone move, if the config does; by default they stay',
    )
    parser.add_argument('--gate-lr-mult', type=float, help='for the gates; default: what the swap chooses')
    parser.add_argument(
        '--layer-lr-mult', type=float, help='for the layers behind gates, and for those of a path with identity start'
    )
    parser.add_argument(
        '--open-fusion',
        action='store_true',
        help='let fully-connected fusion start as it does from scratch; by default it starts without an effect',
    )
    parser.add_argument(
        '--random-layers',
        action='store_true',
        help="let the layers behind the gates of the heads start as from scratch; by default they start as the FPN's",
    )
    parser.add_argument('--dataset', default='', help='last part of the names; default: that of the config')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/growth'))
    args = parser.parse_args()
    for flag, given, ways in (
        ('--gate-lr-mult', args.gate_lr_mult is not None, WITH_GATES),
        ('--layer-lr-mult', args.layer_lr_mult is not None, WITH_LEVELS),
        ('--open-fusion', args.open_fusion, WITH_FUSION),
        ('--random-layers', args.random_layers, WITH_LEVELS),
    ):
        others = sorted(set(args.ways) - set(ways))
        if given and others:
            parser.error(f'{flag}: nothing that it changes in {", ".join(others)}; choose other --ways')
    dataset = args.dataset or Path(args.config).stem.rpartition('_')[2]
    settings = further(args.epochs, float(args.lr), args.train_norm)
    optimizer = dict(type='SGD', lr=float(args.lr), momentum=0.9, weight_decay=1e-4) if args.sgd else None
    try:
        cfg = load_config(args.config)
        checkpoint = resolve_checkpoint(args.checkpoint, args.config)
        read_checkpoint(checkpoint)  # the ways that go on as they are do not read it here
        args.out_dir.mkdir(parents=True, exist_ok=True)
        mults = dict(gate=args.gate_lr_mult, layer=args.layer_lr_mult)
        changes = ''.join(f'-{part}{mult:g}' for part, mult in mults.items() if mult is not None)
        changes += ('-open' if args.open_fusion else '') + ('-random' if args.random_layers else '')
        changes += '-sgd' if args.sgd else ''
        for way in args.ways:
            name = f'{way}{changes}_{args.epochs}e-lr{args.lr}{"-train-norm" if args.train_norm else ""}_{dataset}'
            print(write(cfg, checkpoint, way, settings, optimizer, mults, args, args.out_dir / name))
    except MMPanetError as error:
        sys.exit(f'growth.py: {error}')


def write(cfg, checkpoint, way, settings, optimizer, mults, starts, stem):
    """Write the config and the checkpoint of a way. Returns the path of the config."""
    new = Config(cfg._cfg_dict.to_dict())
    new.merge_from_dict(settings)  # first, because the learning rate of gates depends on that of the config
    if optimizer:
        new.optim_wrapper.optimizer = optimizer
    new.load_from = str(Path(checkpoint).resolve())
    if way not in ('fpn', 'panet'):
        swap = fusion_alone(new) if way == 'fusion' else plan_swap(new, SwapOptions(**WAYS[way]))
        for key in KEPT_PARTS.get(way, ()):
            swap.config.model.roi_head[key] = new.model.roi_head[key]
        layers = list(gated_layers(swap.config.model))
        keys = swap.config.optim_wrapper.setdefault('paramwise_cfg', {}).setdefault('custom_keys', {})
        if way.startswith('identity'):
            swap.config.model.neck.pop('path_gate')
            swap.config.model.neck.update(WARM_START)
            for key in [key for key in keys if key.startswith(tuple(layers))]:
                keys.pop(key)
            layers += LAYERS_OF_PATH
        for mult, names in ((mults['gate'], GATE_PARAMETERS), (mults['layer'], layers)):
            if mult is not None:
                for name in names:
                    for key in (name, *[key for key in keys if key.startswith(f'{name}.')]):
                        keys[key] = {**keys.get(key, {}), 'lr_mult': mult}
        weights = Path(f'{stem}.pth').resolve()
        _, carried = swap_checkpoint(checkpoint, cfg, swap.config, weights)
        if way == 'fusion' and not starts.open_fusion:
            change_weights(weights, swap.config, hide_fusion)
        elif way != 'fusion' and starts.open_fusion:
            change_weights(weights, swap.config, open_fusion)
        if starts.random_layers:
            change_weights(weights, swap.config, start_layers_at_random)
        start_from(swap, str(weights), carried.path)
        new = swap.config
    new.custom_hooks = [*new.get('custom_hooks', []), dict(type='EvaluateFirstHook')]
    path = Path(f'{stem}.py')
    new.dump(path)
    return path


def fusion_alone(cfg):
    """Put fully-connected fusion into a mask head that reads the features of one level."""
    cfg.model.roi_head.mask_head.update(type='FCFusionMaskHead', num_levels=1)
    return Swap(cfg, [('model',)], [])


def change_weights(weights, cfg, change):
    """Let ``change`` set weights of the model in a file of weights. Random numbers are the same in each call."""
    checkpoint = read_checkpoint(weights)
    model = build_model(cfg)
    model.load_state_dict(checkpoint['state_dict'])
    set_random_seed(0)
    change(model, cfg)
    checkpoint['state_dict'] = model.state_dict()
    save_checkpoint(checkpoint, str(weights))


def hide_fusion(model, cfg):
    """Let fully-connected fusion start without an effect, as the swap does."""
    neutralize_fc_branches(model, ['roi_head.mask_head.mask_fc.weight'])


def open_fusion(model, cfg):
    """Let fully-connected fusion that the swap has hidden start as it does from scratch."""
    head = model.roi_head.mask_head
    normal_init(head.mask_fc, std=0.01)  # as in FCFusionMaskHead.init_weights
    head.conv_logits.bias.data.add_(FC_BRANCH_BIAS)


def start_layers_at_random(model, cfg):
    """Let the layers behind the gates of the heads start as they do from scratch."""
    fresh = build_model(cfg).roi_head
    for head in (fresh.bbox_head, fresh.mask_head):
        head.init_weights()
    names = tuple(f'{part}.' for part in gated_layers(cfg.model))
    layers = {name: value for name, value in fresh.state_dict().items() if any(part in name for part in names)}
    model.roi_head.load_state_dict(layers, strict=False)


def further(epochs, lr, train_norm):
    """The schedule: warm-up of 50 steps, then half a cosine to zero. AP after epochs 1 to 3, then after every third."""
    settings = {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': 1,
        'train_cfg.dynamic_intervals': [(4, 3)],
        'optim_wrapper.optimizer.lr': lr,
        'param_scheduler': [
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
            dict(type='CosineAnnealingLR', T_max=epochs, end=epochs, convert_to_iter_based=True),
        ],
    }
    if not train_norm:
        # With a few images per batch the statistics move so much that AP falls by points between two evaluations.
        settings['model.backbone.norm_eval'] = True
    return settings


if __name__ == '__main__':
    main()
