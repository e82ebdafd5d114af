# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Callable, Iterable, Iterator, Optional, Sequence, Union

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from torch import Tensor

from mmpanet.ops import maximum
from mmpanet.utils.errors import ConfigError
from .argument_checks import check_count

LEVEL_FUSIONS = ('max', 'sum')
# Names of the parameters that are gates: of LevelwiseFusion (level_gate=True) and of PANetNeck (path_gate=True).
GATE_PARAMETERS = ('level_gates', 'path_gates')


class LevelwiseFusion(BaseModule):
    """One first layer per level, followed by a fusion over the levels.

    PANet, Section 3.2 and Figure 1(c); ``lib/modeling/fast_rcnn_heads.py`` of the official code. The grid of each RoI
    on each level passes through one parameter layer of its level. The results are fused element by element. As in the
    official code, the norm and the ReLU belong to the layer and come before the fusion.

    Args:
        build_layer (Callable): Builds one first layer. The layer maps (N, C, h, w) to a tensor whose first dimension
            is N.
        num_levels (int): L, the number of pyramid levels. With 1 there is nothing to fuse. Defaults to 4.
        fusion (str): 'max' as in the paper, or 'sum'. Defaults to 'max'.
        share_layer (bool): Use one layer for all levels. Defaults to False.
        fuse_first (bool): Fuse the pooled grids, and then apply a single layer: the first rows of Table 4. Defaults
            to False.
        gate_channels (int, optional): C', the number of output channels of the layer. It adds gates: what the levels
            after the first one add is multiplied by one learned number per level and channel. The gates are zero at
            the start. The output then is that of the first level alone: exactly with 'sum', and with 'max' if the
            layer ends in a ReLU. If all gates are one, and the levels come in their own order, the
            fusion is the paper's. Defaults to None, no gates.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
    """

    def __init__(
        self,
        build_layer: Callable[[], nn.Module],
        num_levels: int = 4,
        fusion: str = 'max',
        share_layer: bool = False,
        fuse_first: bool = False,
        gate_channels: Optional[int] = None,
    ) -> None:
        super().__init__()
        check_count('num_levels', num_levels)
        if fusion not in LEVEL_FUSIONS:
            raise ConfigError(f'level_fusion={fusion!r} must be one of {LEVEL_FUSIONS}')
        self.num_levels = num_levels
        self.fusion = fusion
        self.fuse_first = fuse_first
        if gate_channels is not None and (fuse_first or num_levels == 1):
            raise ConfigError(
                'level_gate=True needs num_levels of at least 2 and fuse_before_first_layer=False: a gate weighs what '
                'the first layer gives for another level'
            )
        self.level_gates = None if gate_channels is None else nn.Parameter(torch.zeros(num_levels - 1, gate_channels))
        num_layers = 1 if share_layer or fuse_first else num_levels
        self.levels = nn.ModuleList(build_layer() for _ in range(num_layers))

    def fuse(self, levels: Iterable[Tensor]) -> Tensor:
        """Fuse the tensors of all levels, which have the same shape, element by element."""
        # A gate that is zero gets its first gradient where torch divides it between equal levels. Without gradients the
        # levels are not held all at once.
        if self.fusion == 'max' and self.level_gates is None and torch.is_grad_enabled():
            return maximum(list(levels))
        combine = torch.maximum if self.fusion == 'max' else torch.add
        levels = iter(levels)
        fused = next(levels)
        for level in levels:
            fused = combine(fused, level)
        return fused

    def forward(self, x: Union[Tensor, Sequence[Tensor]]) -> Tensor:
        """Apply the first layer to each level and fuse the results.

        Args:
            x (Tensor | Sequence[Tensor]): Grids of ``AdaptiveFeaturePooling``, (N, L, C, h, w), or L grids
                (N, C, h, w). With one level also those of mmdet's extractors, (N, C, h, w).

        Returns:
            Tensor: The output of the layer for (N, C, h, w), fused over the L levels.

        Raises:
            ConfigError: If ``x`` has another shape.
        """
        if isinstance(x, Tensor) and x.dim() == 4 and self.num_levels == 1:
            return self.levels[0](x)
        fused = self.fuse(self.before_fusion(x))
        return self.levels[0](fused) if self.fuse_first else fused

    def before_fusion(self, x: Union[Tensor, Sequence[Tensor]]) -> Iterator[Tensor]:
        """Compute what is fused: the output of the first layer for each level.

        Args:
            x (Tensor | Sequence[Tensor]): Grids, (N, L, C, h, w), or L grids (N, C, h, w).

        Returns:
            Iterator[Tensor]: L tensors, computed one after the other, those after the first one multiplied by their
            gates. With ``fuse_first`` these are the grids.
        """
        if isinstance(x, Tensor):
            if x.dim() != 5 or x.size(1) != self.num_levels:
                raise self._misfit(str(tuple(x.shape)))
            x = _unbind_levels(x)
        elif len(x) != self.num_levels:
            raise self._misfit(f'{len(x)} tensors')
        if self.fuse_first:
            return iter(x)
        layers = self.levels if len(self.levels) > 1 else [self.levels[0]] * len(x)
        outputs = (layer(grid) for layer, grid in zip(layers, x))
        return outputs if self.level_gates is None else self._gated(outputs, self.level_gates)

    def _misfit(self, got: str) -> ConfigError:
        return ConfigError(
            f'the head has num_levels={self.num_levels} and needs RoI features of shape '
            f'(N, {self.num_levels}, C, h, w), but got {got}: its roi_extractor must be an AdaptiveFeaturePooling with '
            'as many featmap_strides'
        )

    @staticmethod
    def _gated(outputs: Iterator[Tensor], gates: Tensor) -> Iterator[Tensor]:
        first = next(outputs)
        yield first
        for gate, output in zip(gates, outputs):
            yield output * gate.to(output.dtype).view(1, -1, *[1] * (output.dim() - 2))


def _unbind_levels(x: Tensor) -> Sequence[Tensor]:
    """Take grids (N, L, C, h, w) apart as ``x.unbind(1)`` does.

    The backward stacks the gradients of the levels. If the channels of x come last in memory, as the pooling gives
    them, so do those of the stack, and the pooling need not copy it.
    """
    if x.requires_grad and x.stride(2) == 1:
        return [grid.permute(0, 3, 1, 2) for grid in x.permute(0, 1, 3, 4, 2).unbind(1)]
    return x.unbind(1)
