# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""From which level of the pyramid adaptive feature pooling takes the features of each RoI: PANet, Figure 3."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from mmpanet.models.adaptive_feature_pooling import AdaptiveFeaturePooling
from mmpanet.models.bbox_heads import PANetBBoxHead
from mmpanet.models.fc_fusion_mask_head import FCFusionMaskHead
from mmpanet.models.layers import LevelwiseFusion

FINEST_SCALE = 56  # of mmdet's SingleRoIExtractor, in pixels


@torch.no_grad()
def level_shares(fusion: LevelwiseFusion, grids: Tensor) -> Tensor:
    """The share of every RoI's fused features that comes from each level.

    With the max it is the share of elements that a level wins; a tie is shared, and elements that are the same on all
    levels (zeros behind a ReLU, mostly) do not count. With the sum it is the share of the absolute values.

    Args:
        fusion: The first layer of a head, on more than one level.
        grids: What it takes, (N, L, C, h, w).

    Returns:
        (N, L); each row sums to 1, or to 0 where no level has anything that the others have not.
    """
    values = torch.stack([level.flatten(1) for level in fusion.before_fusion(grids)], dim=1).float()
    if fusion.fusion == 'max':
        highest = values.amax(1, keepdim=True)
        won = ((values == highest) & (highest > values.amin(1, keepdim=True))).float()
        weight = won / won.sum(1, keepdim=True).clamp(min=1)
    else:
        weight = values.abs()
    weight = weight.sum(2)
    return weight / weight.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)


class RoILevels(NamedTuple):
    """The RoIs that a head has seen, and where their features came from."""

    rois: Tensor  # (N, 5): image of the batch, and x1, y1, x2, y2 in pixels of the network's input
    shares: Tensor  # (N, L), see level_shares()

    def of_image(self, index: int) -> 'RoILevels':
        chosen = self.rois[:, 0] == index
        return RoILevels(self.rois[chosen], self.shares[chosen])


class LevelRecorder:
    """Writes down, while a model predicts, the pyramid and the levels that each head's features come from.

    As a context manager. The first layer of every head is computed twice meanwhile; predictions stay as they are.

    Args:
        model: Any detector with a ``neck``; heads without adaptive feature pooling are passed over.

    Attributes:
        strides: Those of the pooled levels, or an empty list if no head pools on several levels.
        heads: Names of the heads that do, e.g. 'bbox_head', 'mask_head', 'bbox_head.0'.
        pyramid: The neck's maps of the last batch, each (B, C, H_l, W_l).

    Examples:
        >>> with LevelRecorder(model) as recorder:  # doctest: +SKIP
        ...     model.test_step(batch)
        >>> recorder.take()['bbox_head'].shares  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        self.pyramid: Tuple[Tensor, ...] = ()
        self.strides: List[int] = []
        self._neck = getattr(model, 'neck', None) or getattr(getattr(model, 'detector', None), 'neck', None)
        self._pooling = [module for module in model.modules() if isinstance(module, AdaptiveFeaturePooling)]
        self._fusions = [
            (name.rpartition('roi_head.')[2], module)
            for name, head in model.named_modules()
            if isinstance(head, (PANetBBoxHead, FCFusionMaskHead))
            for module in head.modules()
            if isinstance(module, LevelwiseFusion) and module.num_levels > 1
        ]
        self.heads = [name for name, _ in self._fusions]
        if self._fusions and self._pooling:
            self.strides = list(self._pooling[0].featmap_strides)
        self._rois: Optional[Tensor] = None
        self._seen: Dict[str, List[RoILevels]] = {}
        self._hooks: list = []

    def attach(self) -> None:
        """Begin to write down."""
        if self._neck is not None:
            self._hooks.append(self._neck.register_forward_hook(self._keep_pyramid))
        for pooling in self._pooling:
            self._hooks.append(pooling.register_forward_hook(self._keep_rois, with_kwargs=True))
        for name, fusion in self._fusions:
            self._hooks.append(fusion.register_forward_pre_hook(self._shares_of(name)))

    def detach(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> 'LevelRecorder':
        self.attach()
        return self

    def __exit__(self, *_) -> None:
        self.detach()

    def take(self) -> Dict[str, RoILevels]:
        """What was seen since the last call, by the name of the head."""
        seen = {name: RoILevels(*map(torch.cat, zip(*parts))) for name, parts in self._seen.items()}
        self._seen.clear()
        return seen

    def _keep_pyramid(self, neck, args, levels):
        self.pyramid = tuple(level.detach() for level in levels)

    def _keep_rois(self, pooling, args, kwargs, grids):
        self._rois = (args[1] if len(args) > 1 else kwargs['rois']).detach()

    def _shares_of(self, name):

        def keep_shares(fusion, args):
            # Features that were pooled earlier, and picked from since, have lost their RoIs.
            if self._rois is not None and len(self._rois) == len(args[0]):
                part = RoILevels(self._rois.cpu(), level_shares(fusion, args[0]).cpu())
                self._seen.setdefault(name, []).append(part)

        return keep_shares


class LevelDistribution:
    """Mean shares of the pooled levels, for RoIs of each level that FPN would take them from: PANet, Figure 3.

    Args:
        strides: Those of the L pooled levels.

    Attributes:
        counts: (L,), the RoIs that FPN would assign to each level.
        sums: (L, L), their shares summed; a row is a level of FPN's, a column a pooled one.
    """

    def __init__(self, strides: List[int]) -> None:
        self.strides = list(strides)
        self.counts = torch.zeros(len(strides), dtype=torch.float64)
        self.sums = torch.zeros(len(strides), len(strides), dtype=torch.float64)

    def add(self, seen: RoILevels) -> None:
        """Count RoIs in, but those that no level gives anything to."""
        shares = seen.shares.double()
        counted = shares.sum(1) > 0.5
        assigned = fpn_levels(seen.rois[counted], len(self.strides))
        self.counts.index_add_(0, assigned, torch.ones(len(assigned), dtype=torch.float64))
        self.sums.index_add_(0, assigned, shares[counted])

    @property
    def means(self) -> Tensor:
        """(L, L); a row sums to 1, and is NaN for a level of FPN's without a RoI."""
        return self.sums / self.counts[:, None]

    def as_dict(self) -> dict:
        """For JSON: strides, number of RoIs and mean shares by FPN's level, and the mean shares over all RoIs."""
        rows = [row.tolist() if count else None for row, count in zip(self.means, self.counts)]
        total = self.sums.sum(0) / self.counts.sum() if self.counts.sum() else None
        return dict(
            strides=self.strides,
            rois=[int(count) for count in self.counts],
            shares=rows,
            all=None if total is None else total.tolist(),
        )


def fpn_levels(rois: Tensor, num_levels: int) -> Tensor:
    """The level that FPN pools each RoI from: FPN, equation 1, as in mmdet's ``SingleRoIExtractor``.

    Args:
        rois: (N, 5).
        num_levels: L.

    Returns:
        (N,), 0 for the finest.
    """
    scales = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).sqrt()
    return (scales / FINEST_SCALE + 1e-6).log2().floor().clamp(min=0, max=num_levels - 1).long()
