# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import copy
import re

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.runner import load_checkpoint, save_checkpoint
from repository import ROOT

from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs

CHANNELS = 16
GN = dict(type='GN', num_groups=4)


@pytest.fixture(scope='module')
def mask_rcnn() -> ConfigDict:
    """A small version of mmdet's Mask R-CNN with FPN."""
    model = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    model.backbone.update(depth=18, base_channels=8, frozen_stages=-1, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=CHANNELS, norm_cfg=GN)
    model.rpn_head.update(in_channels=CHANNELS, feat_channels=CHANNELS)
    roi_head = model.roi_head
    for extractor in (roi_head.bbox_roi_extractor, roi_head.mask_roi_extractor):
        extractor.out_channels = CHANNELS
        extractor.roi_layer.sampling_ratio = 2
    roi_head.bbox_head.update(in_channels=CHANNELS, fc_out_channels=32, num_classes=3)
    roi_head.mask_head.update(in_channels=CHANNELS, conv_out_channels=CHANNELS, num_classes=3)
    model.train_cfg.rpn_proposal.max_per_img = 200
    model.train_cfg.rcnn.sampler.num = 64
    model.test_cfg.rpn.max_per_img = 200
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    return model


@pytest.fixture
def panet(mask_rcnn) -> ConfigDict:
    """The same model with all parts of PANet."""
    model = copy.deepcopy(mask_rcnn)
    model.neck.type = 'PANetNeck'
    roi_head = model.roi_head
    roi_head.type = 'PANetRoIHead'
    roi_head.bbox_roi_extractor.type = 'AdaptiveFeaturePooling'
    roi_head.bbox_head.update(type='PANetShared2FCBBoxHead', norm_cfg=GN)
    roi_head.mask_roi_extractor.type = 'AdaptiveFeaturePooling'
    roi_head.mask_head.update(type='FCFusionMaskHead', norm_cfg=GN)
    return model


def build(cfg):
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def batch(model, num_items=(3, 2), training=True):
    data = demo_mm_inputs(2, [[3, 97, 128], [3, 128, 110]], num_items=list(num_items), num_classes=3, with_mask=True)
    for sample in data['data_samples']:
        instances = sample.gt_instances
        for mask, box in zip(instances.masks.masks, instances.bboxes):
            x1, y1, x2, y2 = box.round().int().tolist()
            mask[:] = 0
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
    return model.data_preprocessor(data, training)


def losses(model, data):
    loss, _ = model.parse_losses(model(**copy.deepcopy(data), mode='loss'))
    return loss


@pytest.mark.parametrize('num_items', [(3, 2), (2, 0), (0, 0)])
@pytest.mark.parametrize('norm', ['GN', 'BN', 'SyncBN', None])
@pytest.mark.gpu
def test_trains_and_predicts(panet, norm, num_items, device):
    """With and without objects; every parameter gets a finite gradient."""
    norm_cfg = norm and dict(type=norm, **(dict(num_groups=4) if norm == 'GN' else {}))
    panet.neck.norm_cfg = norm_cfg
    panet.roi_head.bbox_head.norm_cfg = norm_cfg
    panet.roi_head.mask_head.norm_cfg = norm_cfg
    model = build(panet).to(device).train()
    losses(model, batch(model, num_items)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    model.eval()
    with torch.no_grad():
        results = model(**batch(model, num_items, False), mode='predict')
    for result, shape in zip(results, [(97, 128), (128, 110)]):
        instances = result.pred_instances
        assert len(instances) > 0
        assert instances.masks.shape[1:] == shape
        assert torch.isfinite(instances.bboxes).all()


@pytest.mark.parametrize('proposals', [(0, 0), (5, 0)])
def test_images_without_proposals(panet, proposals):
    """The RoI head without an RoI in one image, and without an RoI in the whole batch."""
    from mmengine.structures import InstanceData

    model = build(panet).train()
    data = batch(model, (0, 0))
    feats = model.extract_feat(data['inputs'])

    def rpn_results():
        return [
            InstanceData(
                bboxes=torch.rand(num, 4) * 20 + torch.tensor([0.0, 0.0, 30.0, 30.0]),
                labels=torch.zeros(num, dtype=torch.long),
                scores=torch.rand(num),
            )
            for num in proposals
        ]

    loss, _ = model.parse_losses(model.roi_head.loss(feats, rpn_results(), data['data_samples']))
    loss.backward()
    for name, parameter in model.roi_head.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    model.eval()
    with torch.no_grad():
        results = model.roi_head.predict(feats, rpn_results(), data['data_samples'], rescale=False)
    assert [len(result) == 0 for result in results] == [num == 0 for num in proposals]


def test_loss_falls_on_a_repeated_batch(panet):
    model = build(panet).train()
    data = batch(model)
    optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3), clip_grad=dict(max_norm=10))
    history = []
    for _ in range(25):
        loss = losses(model, data)
        optimizer.update_params(loss)
        history.append(loss.item())
    assert sum(history[-3:]) < 0.75 * sum(history[:3])


def test_save_and_load(panet, tmp_path):
    model, other = build(panet).eval(), build(panet).eval()
    data = batch(model, training=False)
    filename = str(tmp_path / 'panet.pth')
    save_checkpoint(dict(state_dict=model.state_dict()), filename)
    load_checkpoint(other, filename, strict=True)
    with torch.no_grad():
        expected = model(**copy.deepcopy(data), mode='predict')
        results = other(**copy.deepcopy(data), mode='predict')
    for result, reference in zip(results, expected):
        for key, value in reference.pred_instances.items():
            assert torch.equal(result.pred_instances[key], value), key


def test_all_parts_off_is_mask_rcnn_fpn(mask_rcnn, panet):
    """A test of all parts together: PANet without its parts has the outputs of FPN.

    The neck starts warm, each branch is mmdet's own pair of extractor and
    head, and what remains of PANet is its RoI head.
    """
    panet.neck.update(warm_start=True, bottom_up_act_cfg=None, bottom_up_norm_cfg=None)
    panet.roi_head = dict(mask_rcnn.roi_head, type='PANetRoIHead')
    fpn, ours = build(mask_rcnn), build(panet)
    incompatible = ours.load_state_dict(fpn.state_dict(), strict=False)
    assert not incompatible.unexpected_keys
    assert all(key.startswith(('neck.downsample', 'neck.bottom_up')) for key in incompatible.missing_keys)
    data = batch(fpn)
    torch.manual_seed(1)
    expected = losses(fpn, data)
    torch.manual_seed(1)
    torch.testing.assert_close(losses(ours, data), expected, rtol=0, atol=0)


@pytest.mark.parametrize('rois_per_chunk', [1, 7, 64, 1000])
def test_chunks_give_the_same(panet, rois_per_chunk):
    """In float64, because the order of the sums in a float32 convolution may depend on the number of RoIs."""
    torch.manual_seed(1)
    whole = build(panet).eval()
    panet.roi_head.rois_per_chunk = rois_per_chunk
    chunked = build(panet).eval().double()
    chunked.load_state_dict(whole.state_dict())
    inputs = batch(whole, training=False)['inputs'].double()
    feats = whole.double().extract_feat(inputs)
    rois = torch.rand(64, 5, dtype=torch.float64) * 60
    rois[:, 0] = torch.arange(64) % 2
    rois[:, 3:] += rois[:, 1:3]
    with torch.no_grad():
        for forward, keys in (('_bbox_forward', ('cls_score', 'bbox_pred')), ('_mask_forward', ('mask_preds',))):
            expected = getattr(whole.roi_head, forward)(feats, rois)
            result = getattr(chunked.roi_head, forward)(feats, rois)
            for key in keys:
                torch.testing.assert_close(result[key], expected[key], rtol=1e-12, atol=1e-12)


def test_the_other_roi_heads_take_the_features_as_they_are(panet):
    """Cascade R-CNN over adaptive feature pooling and PANet's heads."""
    cascade = get_config('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py').model
    roi_head, ours = cascade.roi_head, panet.roi_head
    roi_head.bbox_roi_extractor = ours.bbox_roi_extractor
    roi_head.mask_roi_extractor = ours.mask_roi_extractor
    roi_head.mask_head = ours.mask_head
    for head in roi_head.bbox_head:
        head.update(type='PANetShared2FCBBoxHead', in_channels=CHANNELS, fc_out_channels=32, num_classes=3)
    panet.roi_head = roi_head
    panet.train_cfg.rcnn = cascade.train_cfg.rcnn
    panet.test_cfg.rcnn.update(cascade.test_cfg.rcnn)
    model = build(panet).train()
    losses(model, batch(model)).backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        model.eval()(**batch(model, training=False), mode='predict')


def test_a_head_as_in_contributing_trains(panet):
    """The example of CONTRIBUTING.md as it is written there, in a config that leaves out its arguments."""
    [example] = re.findall(r'```python\n(.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), re.DOTALL)
    exec(example, dict(__name__=__name__))
    head_cfg = dict(type='PANetShared1Conv1FCBBoxHead', in_channels=CHANNELS, num_classes=3)
    panet.roi_head.bbox_head = {**panet.roi_head.bbox_head, **head_cfg}
    for default in ('norm_cfg', 'fc_out_channels', 'conv_out_channels'):
        panet.roi_head.bbox_head.pop(default, None)
    model = build(panet).train()
    head, theirs = model.roi_head.bbox_head, ConvFCBBoxHead(num_shared_convs=1, num_shared_fcs=1)
    assert type(head).__name__ == head_cfg['type'] and len(head.shared_convs[0].levels) == 4
    assert head.fc_out_channels == theirs.fc_out_channels == head.shared_fcs[0].out_features
    assert head.conv_out_channels == theirs.conv_out_channels
    before = copy.deepcopy(head.state_dict())
    OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3)).update_params(losses(model, batch(model)))
    for name, parameter in head.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[name]), name


FPN_EXTRACTOR = dict(
    type='SingleRoIExtractor',
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=2),
    out_channels=CHANNELS,
    featmap_strides=[4, 8, 16, 32],
)


def test_one_level_heads_on_mmdets_extractor(panet):
    """A norm on the fcs, and fully-connected fusion, with the features of an FPN."""
    roi_head = panet.roi_head
    roi_head.update(
        bbox_roi_extractor=FPN_EXTRACTOR,
        mask_roi_extractor=dict(FPN_EXTRACTOR, roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=2)),
    )
    roi_head.bbox_head.num_levels = roi_head.mask_head.num_levels = 1
    model = build(panet).train()
    losses(model, batch(model)).backward()
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        model.eval()(**batch(model, training=False), mode='predict')


@pytest.mark.parametrize(
    'change,words',
    [
        (
            lambda r: r.update(bbox_roi_extractor=FPN_EXTRACTOR),
            ['bbox_roi_extractor.type=SingleRoIExtractor', 'bbox_head.type'],
        ),
        (
            lambda r: r.mask_roi_extractor.update(type='SingleRoIExtractor'),
            ['mask_roi_extractor.type=SingleRoIExtractor', 'FCFusionMaskHead'],
        ),
        (
            lambda r: r.bbox_head.update(type='Shared2FCBBoxHead', norm_cfg=None),
            ['bbox_head.type=Shared2FCBBoxHead', 'PANetShared2FCBBoxHead'],
        ),
        (lambda r: r.mask_head.update(type='FCNMaskHead'), ['mask_head.type=FCNMaskHead', 'FCFusionMaskHead']),
        (lambda r: r.bbox_head.update(num_levels=5), ['bbox_head.num_levels=5', 'featmap_strides', 'has 4']),
        (
            lambda r: r.mask_roi_extractor.update(featmap_strides=[4, 8, 16]),
            ['mask_head.num_levels=4', 'mask_roi_extractor', 'has 3'],
        ),
        (
            lambda r: (r.update(bbox_roi_extractor=FPN_EXTRACTOR), r.bbox_head.update(num_levels=1, roi_feat_size=14)),
            ['bbox_head.roi_feat_size=(14, 14)', 'output_size=(7, 7)'],
        ),
        (lambda r: r.bbox_head.update(in_channels=32), ['bbox_head.in_channels=32', 'out_channels=16']),
        (lambda r: r.mask_head.update(roi_feat_size=7), ['mask_head.roi_feat_size=(7, 7)', 'output_size=(14, 14)']),
        (
            lambda r: r.bbox_roi_extractor.roi_layer.update(output_size=14),
            ['bbox_head.roi_feat_size=(7, 7)', 'output_size=(14, 14)'],
        ),
        (
            lambda r: r.update(mask_roi_extractor=None),
            ['mask_head.roi_feat_size=(14, 14)', 'shared with the mask head'],
        ),
        (
            lambda r: r.mask_head.update(upsample_cfg=dict(type='nearest', scale_factor=3)),
            ['train_cfg.rcnn.mask_size=(28, 28)', '(42, 42)'],
        ),
        (lambda r: r.update(rois_per_chunk=0), ['rois_per_chunk=0', 'at least']),
        (lambda r: r.update(shared_head=dict(type='ResLayer', depth=50)), ['shared_head=ResLayer']),
        (
            lambda r: (r.update(shared_head=dict(type='ResLayer', depth=50)), r.pop('mask_head')),
            ['shared_head=ResLayer'],
        ),
    ],
)
def test_parts_that_do_not_go_together(panet, change, words):
    change(panet.roi_head)
    with pytest.raises(ValueError) as error:
        MODELS.build(panet)
    for word in words:
        assert word in str(error.value)
