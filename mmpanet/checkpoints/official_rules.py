# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Names and layout of every tensor of the three official models, in the authors' code and in mmdet."""

from typing import Iterator, List, NamedTuple, Tuple

# The config of each official model, by the name that mmpanet gives the model.
CONFIGS = {
    'mask': 'mask-rcnn_r50-caffe_panet-gn_ms-2x_coco.py',
    'det': 'faster-rcnn_r50-caffe_panet-gn-4conv1fc_ms-1x_coco.py',
    'det_2fc': 'faster-rcnn_r50-caffe_panet-gn-2fc_ms-1x_coco.py',
}


class Rule(NamedTuple):
    """How one official tensor is called and laid out in mmdet.

    Attributes:
        official: Its name in the authors' code.
        ours: Its name in mmdet.
        shape: Its shape in the authors' code.
        classes: What its first dimension is. '': no classes. 'last': classes, and the background moves from the first
            row to the last. 'dropped': classes, and the rows of the background are left out.
        rows_per_class: Rows of the first dimension for each class.
    """

    official: str
    ours: str
    shape: Tuple[int, ...]
    classes: str = ''
    rows_per_class: int = 1


def rules(kind: str) -> List[Rule]:
    """Every tensor of one official model.

    Args:
        kind: 'mask', 'det' or 'det_2fc'.

    Returns:
        One rule for each tensor.
    """
    found = [*_backbone_rules(), *_neck_rules(), *_rpn_rules()]
    found += _2fc_head_rules() if kind == 'det_2fc' else _4conv1fc_head_rules()
    found += _box_output_rules()
    if kind == 'mask':
        found += _mask_head_rules()
    return found


def _weight_and_bias(official: str, ours: str, shape: Tuple[int, ...]) -> Iterator[Rule]:
    yield Rule(f'{official}.weight', f'{ours}.weight', shape)
    yield Rule(f'{official}.bias', f'{ours}.bias', shape[:1])


def _conv_gn(official: str, index: int, ours: str, shape: Tuple[int, ...], bias: bool = False) -> Iterator[Rule]:
    """A conv at ``index`` of a Sequential, and the GN behind it."""
    yield Rule(f'{official}.{index}.weight', f'{ours}.conv.weight', shape)
    if bias:
        yield Rule(f'{official}.{index}.bias', f'{ours}.conv.bias', shape[:1])
    yield from _weight_and_bias(f'{official}.{index + 1}', f'{ours}.gn', shape[:1])


def _backbone_rules() -> Iterator[Rule]:
    """``lib/modeling/ResNet.py``: res1 is the stem, res2 to res5 are layer1 to layer4."""
    source = 'Conv_Body.conv_body'
    yield Rule(f'{source}.res1.conv1.weight', 'backbone.conv1.weight', (64, 3, 7, 7))
    yield from _weight_and_bias(f'{source}.res1.bn1', 'backbone.bn1', (64,))
    in_channels = 64
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        width = 32 * 2**stage
        for block in range(depth):
            theirs = f'{source}.res{stage + 1}.{block}'
            ours = f'backbone.layer{stage}.{block}'
            shapes = ((width, in_channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, shape in enumerate(shapes, start=1):
                yield Rule(f'{theirs}.conv{i}.weight', f'{ours}.conv{i}.weight', shape)
                yield from _weight_and_bias(f'{theirs}.bn{i}', f'{ours}.bn{i}', shape[:1])
            if block == 0:
                yield Rule(
                    f'{theirs}.downsample.0.weight', f'{ours}.downsample.0.weight', (4 * width, in_channels, 1, 1)
                )
                yield from _weight_and_bias(f'{theirs}.downsample.1', f'{ours}.downsample.1', (4 * width,))
            in_channels = 4 * width


def _neck_rules() -> Iterator[Rule]:
    """``lib/modeling/FPN.py``: the top-down path is numbered from coarse to fine, the new path from fine to coarse."""
    yield from _conv_gn('Conv_Body.conv_top', 0, 'neck.lateral_convs.3', (256, 2048, 1, 1))
    for i, channels in enumerate((1024, 512, 256)):
        yield from _conv_gn(
            f'Conv_Body.topdown_lateral_modules.{i}.conv_lateral',
            0,
            f'neck.lateral_convs.{2 - i}',
            (256, channels, 1, 1),
        )
    for i in range(4):
        yield from _conv_gn(f'Conv_Body.posthoc_modules.{i}', 0, f'neck.fpn_convs.{3 - i}', (256, 256, 3, 3))
    for i in range(3):
        # "buttomup" is their spelling.
        for number, ours in ((1, 'downsample_convs'), (2, 'bottom_up_convs')):
            yield from _conv_gn(
                f'Conv_Body.panet_buttomup_conv{number}_modules.{i}', 0, f'neck.{ours}.{i}', (256, 256, 3, 3), bias=True
            )


def _rpn_rules() -> Iterator[Rule]:
    for theirs, ours, shape in (
        ('conv', 'rpn_conv', (256, 256, 3, 3)),
        ('cls_score', 'rpn_cls', (3, 256, 1, 1)),
        ('bbox_pred', 'rpn_reg', (12, 256, 1, 1)),
    ):
        yield from _weight_and_bias(f'RPN.FPN_RPN_{theirs}', f'rpn_head.{ours}', shape)


def _4conv1fc_head_rules() -> Iterator[Rule]:
    """``roi_Xconv1fc_gn_head_panet`` of ``lib/modeling/fast_rcnn_heads.py``."""
    ours = 'roi_head.bbox_head.shared_convs'
    for level in range(4):
        yield from _conv_gn(f'Box_Head.conv1_head.{level}', 0, f'{ours}.0.levels.{level}', (256, 256, 3, 3))
    for i in range(3):
        yield from _conv_gn('Box_Head.convs', 3 * i, f'{ours}.{i + 1}', (256, 256, 3, 3))
    yield from _weight_and_bias('Box_Head.fc', 'roi_head.bbox_head.shared_fcs.0', (1024, 256 * 7 * 7))


def _2fc_head_rules() -> Iterator[Rule]:
    """``roi_2mlp_head_gn_panet`` of ``lib/modeling/fast_rcnn_heads.py``."""
    ours = 'roi_head.bbox_head.shared_fcs'
    fcs = [(f'Box_Head.fc1.{level}', f'{ours}.0.levels.{level}', 256 * 7 * 7) for level in range(4)]
    for theirs, name, features in [*fcs, ('Box_Head.fc2', f'{ours}.1', 1024)]:
        yield from _weight_and_bias(f'{theirs}.0', name, (1024, features))
        yield from _weight_and_bias(f'{theirs}.1', f'{name}.norm', (1024,))


def _box_output_rules() -> Iterator[Rule]:
    """Scores of 81 classes and 4 deltas for each of them."""
    for name, shape in (('weight', (1024,)), ('bias', ())):
        yield Rule(f'Box_Outs.cls_score.{name}', f'roi_head.bbox_head.fc_cls.{name}', (81, *shape), 'last')
        yield Rule(f'Box_Outs.bbox_pred.{name}', f'roi_head.bbox_head.fc_reg.{name}', (324, *shape), 'dropped', 4)


def _mask_head_rules() -> Iterator[Rule]:
    """``mask_rcnn_fcn_head_v1up4convs_gn_adp_ff`` of ``mask_rcnn_heads.py``."""
    ours, conv = 'roi_head.mask_head', (256, 256, 3, 3)
    for level in range(4):
        yield from _conv_gn(f'Mask_Head.mask_conv1.{level}', 0, f'{ours}.convs.0.levels.{level}', conv)
    yield from _conv_gn('Mask_Head.conv_fcn', 0, f'{ours}.convs.1', conv)
    yield from _conv_gn('Mask_Head.conv_fcn', 3, f'{ours}.convs.2', conv)
    yield from _conv_gn('Mask_Head.mask_conv4', 0, f'{ours}.convs.3', conv)
    yield from _conv_gn('Mask_Head.mask_conv4_fc', 0, f'{ours}.conv4_fc', conv)
    yield from _conv_gn('Mask_Head.mask_conv5_fc', 0, f'{ours}.conv5_fc', (128, 256, 3, 3))
    yield from _weight_and_bias('Mask_Head.mask_fc.0', f'{ours}.mask_fc', (784, 128 * 14 * 14))
    yield from _weight_and_bias('Mask_Head.upconv', f'{ours}.upsample', (256, 256, 2, 2))
    yield Rule('Mask_Outs.classify.weight', f'{ours}.conv_logits.weight', (81, 256, 1, 1), 'dropped')
    yield Rule('Mask_Outs.classify.bias', f'{ours}.conv_logits.bias', (81,), 'dropped')
