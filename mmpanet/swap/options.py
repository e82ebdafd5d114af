# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What a swap can be asked for, and which requests contradict each other."""

from dataclasses import dataclass
from typing import Optional

from mmpanet.models.layers.levelwise_fusion import LEVEL_FUSIONS
from mmpanet.models.panet_neck import NECK_FUSIONS
from mmpanet.utils.errors import ConfigError

OFFICIAL_SAMPLING_RATIO = 2


@dataclass(frozen=True)
class SwapOptions:
    """The arguments of :func:`mmpanet.swap.swap_config`, which explains them.

    Raises:
        ConfigError: If a value is not allowed, or two of them contradict each other.
    """

    roi_head: bool = False
    warm_start: bool = False
    fusion: str = 'sum'
    sampling_ratio: Optional[int] = None
    grow: bool = False
    roi_head_only: bool = False
    check_channels: bool = False
    level_fusion: str = 'max'

    def __post_init__(self) -> None:
        if self.fusion not in NECK_FUSIONS:
            raise ConfigError(f'fusion={self.fusion!r} must be one of {NECK_FUSIONS}')
        if self.level_fusion not in LEVEL_FUSIONS:
            raise ConfigError(f'level_fusion={self.level_fusion!r} must be one of {LEVEL_FUSIONS}')
        if self.sampling_ratio is not None and (not isinstance(self.sampling_ratio, int) or self.sampling_ratio < 0):
            raise ConfigError(
                f'sampling_ratio={self.sampling_ratio!r} must be a whole number of at least 1, or 0, which leaves '
                'the config as it is'
            )
        if self.roi_head_only and (self.warm_start or self.fusion != 'sum'):
            of_neck = 'warm_start=True' if self.warm_start else f'fusion={self.fusion!r}'
            raise ConfigError(
                f'roi_head_only=True with {of_neck}: the neck stays as it is; with grow=True the heads start with the '
                'outputs of the old model'
            )
        if self.grow and self.warm_start:
            raise ConfigError(
                'grow=True with warm_start=True: these are two ways to start as the old model; choose one'
            )
        if self.level_fusion != 'max' and not (self.swaps_roi_head and self.grow):
            raise ConfigError(
                f'level_fusion={self.level_fusion!r} needs grow=True and a swap of the RoI head: without gates the sum '
                'would be a multiple of the old outputs; to train from scratch, set level_fusion in the heads of the '
                'new config'
            )

    @property
    def samples(self) -> int:
        """What ``sampling_ratio=None`` stands for, or its value: 0 leaves the config as it is."""
        if self.sampling_ratio is not None:
            return self.sampling_ratio
        return 0 if self.grow else OFFICIAL_SAMPLING_RATIO

    @property
    def swaps_roi_head(self) -> bool:
        """Whether the RoI head is swapped, with or without the neck."""
        return self.roi_head or self.roi_head_only
