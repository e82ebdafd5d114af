# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The whole model against numbers computed with the authors' modules."""

import numpy as np
import torch
from torch.nn.functional import softmax

from mmpanet.checkpoints.official_conversion import from_official
from mmpanet.models import AdaptiveFeaturePooling
from mmpanet.ops import winograd
from .conftest import DATA, build_model, official_checkpoint


@torch.no_grad()
def official_outputs(model, image, rois) -> dict:
    """What the fixtures hold, in the official order of classes."""
    levels = model.extract_feat(image)
    outputs = {f'N{i}': level for i, level in enumerate(levels, start=2)}
    outputs.update({key: outputs[key][:, ::8] for key in ('N2', 'N3')})
    for i, (scores, deltas) in enumerate(zip(*model.rpn_head(levels)), 2):
        outputs[f'rpn_cls_logits_N{i}'] = scores
        outputs[f'rpn_bbox_pred_N{i}'] = deltas
    boxes = model.roi_head._bbox_forward(levels, rois)
    # background last to background first
    outputs['cls_prob'] = softmax(boxes['cls_score'], 1).roll(1, 1)
    outputs['bbox_pred'] = boxes['bbox_pred']
    if model.roi_head.with_mask:
        masks = model.roi_head._mask_forward(levels, rois[:4])['mask_preds']
        outputs['mask_prob'] = masks.sigmoid()
    return {key: value.numpy() for key, value in outputs.items()}


def test_every_array_agrees(kind, monkeypatch):
    monkeypatch.setattr(winograd, 'FEWEST_PIXELS_PER_THREAD', 0)
    calls, convolve = [], winograd._convolve
    monkeypatch.setattr(winograd, '_convolve', lambda *args: calls.append(len(args[0])) or convolve(*args))
    monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', True)  # when the model is built
    model = build_model(kind)
    model.load_state_dict(from_official(official_checkpoint(kind))['state_dict'], strict=True)
    with np.load(DATA / f'panet_{kind}.npz') as file:
        expected = dict(file)
    image = torch.from_numpy(expected.pop('image'))
    rois = torch.from_numpy(expected.pop('rois'))
    # mmdet has no boxes and no masks of the background
    expected['bbox_pred'] = expected['bbox_pred'][:, 4:]
    if 'mask_prob' in expected:
        expected['mask_prob'] = expected['mask_prob'][:, 1:]
    for backend, fast_convolutions, tolerance in (
        ('roi_align', False, 1e-5),
        ('embedding_bag', False, 1e-4),
        ('embedding_bag', True, 1e-4),
    ):
        monkeypatch.setattr(winograd, 'PREFERS_WINOGRAD', fast_convolutions)
        for module in model.modules():
            if isinstance(module, AdaptiveFeaturePooling):
                module.backend = backend
        outputs = official_outputs(model, image, rois)
        assert set(outputs) == set(expected)
        for key, reference in expected.items():
            assert outputs[key].shape == reference.shape, key
            error = np.abs(outputs[key] - reference).max()
            error /= np.abs(reference).max()
            print(f'{kind:8s} {backend:14s} {fast_convolutions:d} {key:20s} {error:.1e}')
            assert error < tolerance, (backend, fast_convolutions, key)
        # 3 of FPN (P2 is wide) and 3 of the path in the neck; 4 first and 3 further convolutions of the box head; 4, 3
        # and 2 of the branch in the mask head.
        assert len(calls) == (6 + dict(mask=7 + 9, det=7, det_2fc=0)[kind] if fast_convolutions else 0)
