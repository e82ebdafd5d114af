# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""A two-stage detector as ONNX graphs, with what is needed to run them."""

import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any, Dict, List

import torch
import torch.nn as nn
from mmcv.ops import RoIAlign
from mmengine.config import Config

from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.models.task_modules import AnchorGenerator, DeltaXYWHBBoxCoder
from mmdet.utils import get_test_pipeline_cfg
from mmpanet.models import AdaptiveFeaturePooling, PANetRoIHead
from . import onnx_detector
from .graphs import BoxGraph, DenseGraph, MaskGraph

# The first with RoiAlign's coordinate_transformation_mode.
OPSET = 16


class ExportError(ValueError):
    """The detector has a part that the graphs or their runtime do not know."""


def export_detector(model: nn.Module, cfg: Config, folder: str) -> List[Path]:
    """Write ``dense.onnx``, ``box.onnx``, ``mask.onnx`` and what runs them.

    ``detector.json`` holds the numbers of pre- and post-processing, and
    ``onnx_detector.py`` is the runtime, which needs numpy, onnxruntime and
    OpenCV alone. All graphs are dynamic in the image's size, the latter two
    in the number of RoIs too.

    Args:
        model (nn.Module): A two-stage detector of mmdet, on the CPU.
        cfg (Config): Its config, for the test pipeline.
        folder (str): Where to write; made if it is not there.

    Returns:
        list[Path]: The files.

    Raises:
        ExportError: If the detector or its test pipeline has a part that
            cannot be exported; nothing is written then.
    """
    settings = describe(model, cfg)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    model.eval()
    # Whole or not at all: what fails half-way leaves the folder as it was.
    with tempfile.TemporaryDirectory(dir=target) as name:
        unfinished = Path(name)
        _export_graphs(model, settings, unfinished)
        (unfinished / 'detector.json').write_text(json.dumps(settings, indent=2) + '\n')
        shutil.copy(onnx_detector.__file__, unfinished)
        return [path.replace(target / path.name) for path in sorted(unfinished.iterdir())]


def describe(model: nn.Module, cfg: Config) -> dict:
    """The settings of pre- and post-processing, as ``detector.json`` has them.

    Args:
        model (nn.Module): The detector.
        cfg (Config): Its config.

    Raises:
        ExportError: As in :func:`export_detector`.
    """
    _check(model, 'model', TwoStageDetector)
    _check(model.rpn_head, 'model.rpn_head', RPNHead, exactly=True)
    _check(model.roi_head, 'model.roi_head', StandardRoIHead, PANetRoIHead, exactly=True)
    rpn, roi_head = model.rpn_head, model.roi_head
    _check(rpn.prior_generator, 'model.rpn_head.anchor_generator', AnchorGenerator, exactly=True)
    if not rpn.use_sigmoid_cls:
        raise ExportError('model.rpn_head.loss_cls.use_sigmoid=False: only True can be exported')
    if roi_head.with_shared_head:
        raise ExportError(
            f'model.roi_head.shared_head={type(roi_head.shared_head).__name__}: only None can be exported'
        )
    if roi_head.bbox_head.custom_cls_channels:
        raise ExportError(
            f'model.roi_head.bbox_head.loss_cls={type(roi_head.bbox_head.loss_cls).__name__} has an '
            'activation of its own: only a softmax can be exported'
        )
    for branch in ('bbox', 'mask') if roi_head.with_mask else ('bbox',):
        key = f'model.roi_head.{branch}_roi_extractor'
        extractor = getattr(roi_head, f'{branch}_roi_extractor')
        _check(extractor, key, AdaptiveFeaturePooling, SingleRoIExtractor)
        for layer in extractor.roi_layers:
            _check(layer, f'{key}.roi_layer', RoIAlign)
            if layer.pool_mode != 'avg':
                raise ExportError(f"{key}.roi_layer.pool_mode={layer.pool_mode!r}: only 'avg' can be exported")
    settings = dict(
        preprocess=_preprocess(model, cfg),
        num_maps=model.neck.num_outs if model.with_neck else len(rpn.prior_generator.strides),
        rpn=dict(
            strides=[list(stride) for stride in rpn.prior_generator.strides],
            base_anchors=[anchors.tolist() for anchors in rpn.prior_generator.base_anchors],
            coder=_coder(rpn.bbox_coder, 'model.rpn_head.bbox_coder'),
            nms_pre=rpn.test_cfg.get('nms_pre', -1),
            max_per_img=rpn.test_cfg.max_per_img,
            min_bbox_size=rpn.test_cfg.get('min_bbox_size', -1),
            nms=_nms(rpn.test_cfg.nms, 'model.test_cfg.rpn.nms'),
        ),
        box=dict(
            num_maps=roi_head.bbox_roi_extractor.num_inputs,
            coder=_coder(roi_head.bbox_head.bbox_coder, 'model.roi_head.bbox_head.bbox_coder'),
            score_thr=roi_head.test_cfg.score_thr,
            max_per_img=roi_head.test_cfg.max_per_img,
            nms=_nms(roi_head.test_cfg.nms, 'model.test_cfg.rcnn.nms'),
        ),
    )
    if roi_head.with_mask:
        settings['mask'] = dict(
            num_maps=roi_head.mask_roi_extractor.num_inputs,
            class_agnostic=roi_head.mask_head.class_agnostic,
            threshold=roi_head.test_cfg.mask_thr_binary,
        )
    settings['classes'] = list((getattr(model, 'dataset_meta', None) or {}).get('classes', ()))
    return settings


def _check(part: object, key: str, *allowed: type, exactly: bool = False) -> None:
    fits = type(part) in allowed if exactly else isinstance(part, allowed)
    if not fits:
        names = ' or '.join(kind.__name__ for kind in allowed)
        raise ExportError(f'{key} is a {type(part).__name__}: only {names} can be exported')


def _coder(coder: Any, key: str) -> dict:
    _check(coder, key, DeltaXYWHBBoxCoder, exactly=True)
    if coder.add_ctr_clamp:
        raise ExportError(f'{key}.add_ctr_clamp=True: only False can be exported')
    return dict(means=list(coder.means), stds=list(coder.stds), clip_border=coder.clip_border)


def _nms(nms: dict, key: str) -> dict:
    kind = nms.get('type', 'nms')
    if kind != 'nms':
        raise ExportError(f"{key}.type={kind!r}: only 'nms' can be exported")
    return dict(iou_threshold=nms['iou_threshold'], class_agnostic=nms.get('class_agnostic', False))


def _preprocess(model: nn.Module, cfg: Config) -> dict:
    preprocessor = model.data_preprocessor
    resize = [step for step in get_test_pipeline_cfg(cfg) if step['type'] == 'Resize']
    others = {step['type'] for step in get_test_pipeline_cfg(cfg)} - {
        'LoadImageFromFile',
        'LoadAnnotations',
        'Resize',
        'PackDetInputs',
    }
    if others or len(resize) > 1:
        raise ExportError(
            f'test_pipeline has {sorted(others) or "two Resize"}: only LoadImageFromFile, one Resize, '
            'LoadAnnotations and PackDetInputs can be exported'
        )
    step = dict(resize[0]) if resize else dict(scale_factor=1.0)
    scale: Any = step.get('scale')
    factor: Any = step.get('scale_factor')
    if preprocessor.mean is None or step.get('interpolation', 'bilinear') != 'bilinear':
        raise ExportError(
            "the data preprocessor needs mean and std, and test_pipeline's Resize interpolation='bilinear'"
        )
    return dict(
        scale=None if scale is None else list(scale),
        scale_factor=None if factor is None else list(factor) if isinstance(factor, (list, tuple)) else [factor] * 2,
        keep_ratio=step.get('keep_ratio', False),
        to_rgb=preprocessor._channel_conversion,
        mean=preprocessor.mean.flatten().tolist(),
        std=preprocessor.std.flatten().tolist(),
        pad_size_divisor=preprocessor.pad_size_divisor,
        pad_value=float(preprocessor.pad_value),
    )


def _export_graphs(model: nn.Module, settings: dict, folder: Path) -> None:
    # Sizes that no layer could take for its own.
    divisor = max(settings['preprocess']['pad_size_divisor'], 1)
    image = torch.rand(1, 3, -(-96 // divisor) * divisor, -(-160 // divisor) * divisor)
    levels = range(settings['num_maps'])
    names = [f'{what}_{i}' for what in ('map', 'rpn_score', 'rpn_delta') for i in levels]
    size = {2: 'height', 3: 'width'}
    maps = {name: {2: f'{name}_height', 3: f'{name}_width'} for name in names}
    dense = DenseGraph(model)
    _export(dense, (image,), ['image'], names, dict(image=size, **maps), folder / 'dense.onnx')
    with torch.no_grad():
        feats = dense(image)[: len(levels)]
    rois = torch.tensor([[0, 3.0, 4.0, 50.0, 40.0], [0, 0.0, 0.0, 90.0, 80.0], [0, 60.0, 20.0, 75.0, 90.0]])
    for name, graph, outputs in (('box', BoxGraph, ['scores', 'deltas']), ('mask', MaskGraph, ['masks'])):
        if name not in settings:
            continue
        used = settings[name]['num_maps']
        dynamic: Dict[str, dict] = {f'map_{i}': maps[f'map_{i}'] for i in range(used)}
        dynamic.update({key: {0: 'num_rois'} for key in ('rois', *outputs)})
        _export(
            graph(model.roi_head),
            (rois, *feats[:used]),
            ['rois', *(f'map_{i}' for i in range(used))],
            outputs,
            dynamic,
            folder / f'{name}.onnx',
        )


def _export(
    graph: nn.Module, inputs: tuple, input_names: List[str], output_names: List[str], dynamic_axes: dict, path: Path
) -> None:
    with warnings.catch_warnings(), torch.no_grad():
        # Of the checks of shapes, which hold for every size.
        warnings.simplefilter('ignore')
        torch.onnx.export(
            graph.eval(),
            inputs,
            str(path),
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=dynamic_axes,
            opset_version=OPSET,
            dynamo=False,
        )
