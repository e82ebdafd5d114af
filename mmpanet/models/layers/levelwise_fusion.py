# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Callable, Iterable, Iterator

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from .argument_checks import check_count

LEVEL_FUSIONS = ('max', 'sum')


class LevelwiseFusion(BaseModule):
    """A first layer of its own for every level, then fusion over levels.

    PANet, Section 3.2 and Figure 1(c): each RoI's grid of every level goes
    through one parameter layer independently, and the results are fused
    element-wise. Norm and ReLU belong to the layer and come before the
    fusion, as in the official code (``lib/modeling/fast_rcnn_heads.py``).

    Args:
        build_layer (Callable): Makes one first layer; it maps (N, C, h, w)
            to anything that starts with N.
        num_levels (int): L, the number of pyramid levels; with 1 there is
            nothing to fuse. Defaults to 4.
        fusion (str): 'max' (the paper's) or 'sum'. Defaults to 'max'.
        share_layer (bool): One layer for all levels. Defaults to False.
        fuse_first (bool): Fuse the pooled grids, then apply a single layer:
            the first rows of Table 4. Defaults to False.
    """

    def __init__(
        self,
        build_layer: Callable[[], nn.Module],
        num_levels: int = 4,
        fusion: str = 'max',
        share_layer: bool = False,
        fuse_first: bool = False,
    ) -> None:
        super().__init__()
        check_count('num_levels', num_levels)
        if fusion not in LEVEL_FUSIONS:
            raise ValueError(f'level_fusion={fusion!r} must be one of {LEVEL_FUSIONS}')
        self.num_levels = num_levels
        self.fusion = fusion
        self.fuse_first = fuse_first
        num_layers = 1 if share_layer or fuse_first else num_levels
        self.levels = nn.ModuleList(build_layer() for _ in range(num_layers))

    def fuse(self, levels: Iterable[Tensor]) -> Tensor:
        """Fuse equally shaped tensors, one a level, element by element."""
        combine = torch.maximum if self.fusion == 'max' else torch.add
        levels = iter(levels)
        fused = next(levels)
        for level in levels:
            fused = combine(fused, level)
        return fused

    def forward(self, x: Tensor) -> Tensor:
        """Apply the first layer level by level and fuse.

        Args:
            x (Tensor): The grids of ``AdaptiveFeaturePooling``,
                (N, L, C, h, w), or with one level those of mmdet's
                extractors, (N, C, h, w).

        Returns:
            Tensor: What the layer makes of (N, C, h, w), fused over L.
        """
        if x.dim() == 4 and self.num_levels == 1:
            return self.levels[0](x)
        fused = self.fuse(self.before_fusion(x))
        return self.levels[0](fused) if self.fuse_first else fused

    def before_fusion(self, x: Tensor) -> Iterator[Tensor]:
        """What is fused: the first layer's output of each level in turn.

        Args:
            x (Tensor): Grids, (N, L, C, h, w).

        Returns:
            Iterator[Tensor]: L tensors; with ``fuse_first`` the grids.
        """
        if x.dim() != 5 or x.size(1) != self.num_levels:
            raise ValueError(
                f'the head has num_levels={self.num_levels} and needs RoI '
                f'features of shape (N, {self.num_levels}, C, h, w), but got '
                f'{tuple(x.shape)}: its roi_extractor must be an '
                'AdaptiveFeaturePooling with as many featmap_strides'
            )
        grids = x.unbind(1)
        if self.fuse_first:
            return iter(grids)
        if len(self.levels) == 1:
            return (self.levels[0](grid) for grid in grids)
        return (layer(grid) for layer, grid in zip(self.levels, grids))
