# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The levels of the pyramid that adaptive feature pooling takes the features of each RoI from: PANet, Figure 3."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from mmpanet.models.adaptive_feature_pooling import AdaptiveFeaturePooling
from mmpanet.models.bbox_heads import PANetBBoxHead
from mmpanet.models.fc_fusion_mask_head import FCFusionMaskHead
from mmpanet.models.layers import GATE_PARAMETERS, LevelwiseFusion
from mmpanet.ops import fpn_levels


@torch.no_grad()
def level_shares(fusion: LevelwiseFusion, grids: Tensor) -> Tensor:
    """The share of the fused features of each RoI that comes from each level.

    With ``fusion='max'`` it is the share of the elements whose maximum is on that level. A tie is shared. Elements that
    are equal on all levels, which are mostly zeros after a ReLU, do not count. With ``fusion='sum'`` it is the share of
    the absolute values.

    Args:
        fusion: The first layer of a head, on L > 1 levels.
        grids: The input of that layer, (N, L, C, h, w).

    Returns:
        (N, L). Each row sums to 1, or to 0 where all elements are equal on all levels.
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
    """RoIs of a head, and the levels that their features came from."""

    # (N, 5): index of the image in its batch, and x1, y1, x2, y2 in pixels of the network's input; or rotated, (N, 6)
    rois: Tensor
    shares: Tensor  # (N, L), see level_shares()

    def of_image(self, index: int) -> 'RoILevels':
        """The RoIs of one image of the batch."""
        chosen = self.rois[:, 0] == index
        return RoILevels(self.rois[chosen], self.shares[chosen])


class LevelRecorder:
    """Records the pyramid, and the levels that the features of each head come from, while a model predicts.

    It is a context manager. While it records, each head computes its first layer twice. Predictions do not change.

    Args:
        model: Any detector with a ``neck``. Heads without adaptive feature pooling are ignored.

    Attributes:
        strides: The strides of the pooled levels, or an empty list if no head pools from several levels.
        finest_scale: By which the pooling assigns RoIs to levels, if it orders them; else FPN's.
        heads: The names of the heads that do, such as 'bbox_head', 'mask_head', 'bbox_head.0'.
        pyramid: The neck's output for the last batch, L maps of (B, C, H_l, W_l).

    Examples:
        >>> with LevelRecorder(model) as recorder:  # doctest: +SKIP
        ...     model.test_step(batch)
        >>> recorder.take()['bbox_head'].shares  # doctest: +SKIP
    """

    def __init__(self, model: nn.Module) -> None:
        self.pyramid: Tuple[Tensor, ...] = ()
        self.strides: List[int] = []
        self.finest_scale = 56
        self._neck = getattr(model, 'neck', None) or getattr(getattr(model, 'detector', None), 'neck', None)
        self._pooling = [module for module in model.modules() if isinstance(module, AdaptiveFeaturePooling)]
        self._fusions = [
            (name.rpartition('roi_head.')[2], module)
            for name, head in model.named_modules()
            if self._pooling and isinstance(head, (PANetBBoxHead, FCFusionMaskHead))
            for module in head.modules()
            if isinstance(module, LevelwiseFusion) and module.num_levels > 1
        ]
        self.heads = [name for name, _ in self._fusions]
        if self._fusions:
            self.strides = list(self._pooling[0].featmap_strides)
            if self._pooling[0].own_level_first:
                self.finest_scale = self._pooling[0].finest_scale
        self._rois: Optional[Tensor] = None
        self._order: Optional[Tensor] = None  # of the pooled levels, for each RoI, if it is not from fine to coarse
        self._recorded: Dict[str, List[RoILevels]] = {}
        self._hooks: List[Any] = []

    def attach(self) -> None:
        """Start to record."""
        if self._neck is not None:
            self._hooks.append(self._neck.register_forward_hook(self._record_pyramid))
        for pooling in self._pooling:
            self._hooks.append(pooling.register_forward_hook(self._record_rois, with_kwargs=True))
        for name, fusion in self._fusions:
            self._hooks.append(fusion.register_forward_pre_hook(self._shares_recorder(name)))

    def detach(self) -> None:
        """Stop to record, and remove all hooks from the model."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __enter__(self) -> 'LevelRecorder':
        self.attach()
        return self

    def __exit__(self, *_: Any) -> None:
        self.detach()

    def new_distributions(self) -> Dict[str, 'LevelDistribution']:
        """An empty distribution for each of the heads."""
        return {name: LevelDistribution(self.strides, self.finest_scale) for name in self.heads}

    def take(self) -> Dict[str, RoILevels]:
        """Return the RoIs since the last call, by the name of the head, and forget them."""
        recorded = {name: RoILevels(*map(torch.cat, zip(*parts))) for name, parts in self._recorded.items()}
        self._recorded.clear()
        return recorded

    def _record_pyramid(self, neck: nn.Module, args: Any, levels: Tuple[Tensor, ...]) -> None:
        self.pyramid = tuple(level.detach() for level in levels)

    def _record_rois(self, pooling: AdaptiveFeaturePooling, args: Any, kwargs: Dict[str, Any], grids: Tensor) -> None:
        self._rois = (args[1] if len(args) > 1 else kwargs['rois']).detach()
        self._order = pooling.level_order(self._rois) if pooling.own_level_first else None

    def _shares_recorder(self, name: str) -> Callable[[LevelwiseFusion, Any], None]:
        def record_shares(fusion: LevelwiseFusion, args: Any) -> None:
            # If a head selects some of the pooled features before its first layer, their RoIs are not known.
            if self._rois is not None and len(self._rois) == len(args[0]):
                shares = level_shares(fusion, args[0])
                if self._order is not None:
                    shares = torch.zeros_like(shares).scatter(1, self._order, shares)  # from fine to coarse again
                part = RoILevels(self._rois.cpu(), shares.cpu())
                self._recorded.setdefault(name, []).append(part)

        return record_shares


def gate_values(model: nn.Module) -> Dict[str, Tensor]:
    """The gates of a model: ``level_gate=True`` in heads, ``path_gate=True`` in the neck.

    Args:
        model: Any detector.

    Returns:
        For each parameter of gates, by the name of its module without ``roi_head.``: the gates (L, C) of C channels,
        for L levels behind a RoI's own level, or for L levels of the new path (N3, N4, ...). 0 is closed; 1 is the
        paper's fusion.
    """
    gates = {}
    for name, parameter in model.named_parameters():
        prefix, _, own = name.rpartition('.')
        if own in GATE_PARAMETERS:
            gates[prefix.replace('roi_head.', '') or own] = parameter.detach().float().cpu()
    return gates


def gate_openings(gates: Tensor) -> List[float]:
    """How far the gates (L, C) of a layer have opened: their mean magnitude over the channels, for each level."""
    return gates.abs().mean(dim=1).tolist()


class LevelDistribution:
    """Mean shares of the pooled levels, separately for the RoIs that FPN assigns to each level: PANet, Figure 3.

    Args:
        strides: The strides of the L pooled levels.
        finest_scale: A RoI belongs to the finest level if the square root of its area, in pixels, is below twice this
            number.

    Attributes:
        counts: (L,), the number of RoIs that FPN assigns to each level.
        sums: (L, L), the sums of their shares. Rows are levels of FPN, columns are pooled levels.
    """

    def __init__(self, strides: List[int], finest_scale: int = 56) -> None:
        self.strides = list(strides)
        self.finest_scale = finest_scale
        self.counts = torch.zeros(len(strides), dtype=torch.float64)
        self.sums = torch.zeros(len(strides), len(strides), dtype=torch.float64)

    def add(self, levels: RoILevels) -> None:
        """Add RoIs. Those whose shares are all 0 are left out."""
        shares = levels.shares.double()
        counted = shares.sum(1) > 0.5
        assigned = fpn_levels(levels.rois[counted], len(self.strides), self.finest_scale)
        self.counts.index_add_(0, assigned, torch.ones(len(assigned), dtype=torch.float64))
        self.sums.index_add_(0, assigned, shares[counted])

    @property
    def means(self) -> Tensor:
        """(L, L). Each row sums to 1; it is NaN where FPN assigns no RoI to the level."""
        return self.sums / self.counts[:, None]

    def as_dict(self) -> Dict[str, Any]:
        """For JSON: strides, number of RoIs and mean shares for each level of FPN, and mean shares over all RoIs."""
        rows = [row.tolist() if count else None for row, count in zip(self.means, self.counts)]
        total = self.sums.sum(0) / self.counts.sum() if self.counts.sum() else None
        return dict(
            strides=self.strides,
            rois=[int(count) for count in self.counts],
            shares=rows,
            all=None if total is None else total.tolist(),
        )
