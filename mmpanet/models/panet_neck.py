# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple, Union

import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, constant_init
from torch import Tensor

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, MultiConfig, OptConfigType
from .layers import ConcatFusion, SumFusion, WeightedFusion
from .layers.argument_checks import check_count, check_norm_cfg

NECK_FUSIONS = ('sum', 'concat', 'weighted')
EXTRA_CONVS = (False, True, 'on_input', 'on_lateral', 'on_output')


@MODELS.register_module()
class PANetNeck(FPN):
    r"""FPN with bottom-up path augmentation.

    PANet, Section 3.1 and Figure 1(b); ``fpn_..._panet`` in the official
    ``lib/modeling/FPN.py``. On top of FPN's P2 to P5:

    .. math::
        N_2 = P_2, \quad
        N_{i+1} = \mathrm{conv}_{3 \times 3}
            (P_{i+1} + \mathrm{conv}_{3 \times 3, s2}(N_i))

    Each conv of the new path is followed by a ReLU, and the stride-2 conv
    reads the finished N(i), not the sum before its 3x3 conv (mmdet's
    ``PAFPN`` reads that sum). The paper says nothing of levels above N5:
    they are made from the N levels by FPN's own rules, by default a
    subsampling of N5, as in the official code.

    Where the stride-2 conv's map is not as large as P(i+1), because two
    levels of the backbone are not a factor of two apart, it is resized to it
    (nearest), as FPN does on its way down; the paper has no such case.

    All arguments of mmdet's ``FPN`` keep their names and meaning, and the
    lateral and output convs keep their names, so that a swap is a change of
    ``type`` and an FPN checkpoint loads.

    Args:
        in_channels (list[int]): Channels of the backbone's levels.
        out_channels (int): C, channels of every output level.
        num_outs (int): Number of output levels.
        start_level (int): First backbone level that is used. Defaults to 0.
        end_level (int): Last backbone level that is used; -1 is the last.
            Defaults to -1.
        add_extra_convs (bool | str): Levels above the last one: False
            subsamples the last N; 'on_input' (or True), 'on_lateral' and
            'on_output' are stride-2 convs on the last backbone level, on its
            lateral, and on the last N. Defaults to False.
        relu_before_extra_convs (bool): Defaults to False.
        no_norm_on_lateral (bool): Defaults to False.
        conv_cfg (dict, optional): Config of all convs. Defaults to None.
        norm_cfg (dict, optional): Norm of FPN's convs, and of the new path
            unless ``bottom_up_norm_cfg`` says otherwise. Defaults to None.
        act_cfg (dict, optional): Activation of FPN's convs; these have none
            in the paper. Defaults to None.
        upsample_cfg (dict): Defaults to ``dict(mode='nearest')``.
        bottom_up_norm_cfg (dict | str, optional): Norm of the new path's
            convs; 'same' is ``norm_cfg``. Defaults to 'same'.
        bottom_up_act_cfg (dict, optional): Activation after each conv of the
            new path. The paper's ReLU by default. The official code drops it
            where there is no norm; ``None`` does that.
        bottom_up_bias (bool | str): Bias of the new path's convs; 'auto'
            leaves it to the norm. The official code has a bias beside its
            GN: True. Defaults to 'auto'.
        fusion (str): How P(i+1) and the stride-2 conv's map are fused:
            'sum' (the paper's), 'concat' (with a 1x1 conv) or 'weighted'
            (learned, non-negative, normalised). Defaults to 'sum'.
        warm_start (bool): Start the stride-2 convs at zero and the 3x3 convs
            at identity. With no norm and no activation on the new path the
            neck then *is* the FPN before the first step, for each
            ``fusion``. The new path's convs are plain ones then: a weight
            standardised conv (``ConvWS``) can be neither zero nor identity.
            Defaults to False.
        init_cfg (dict or list[dict]): Xavier, uniform, as in FPN and in the
            official code.

    Raises:
        ValueError: If an argument has a value that it does not take.

    Examples:
        >>> import torch
        >>> from mmpanet.models import PANetNeck
        >>> neck = PANetNeck([64, 128, 256, 512], 256, num_outs=5)
        >>> maps = [torch.rand(1, 64 << i, 64 >> i, 64 >> i) for i in range(4)]
        >>> [tuple(level.shape[1:]) for level in neck(maps)]
        [(256, 64, 64), (256, 32, 32), (256, 16, 16), (256, 8, 8), (256, 4, 4)]
    """

    def __init__(
        self,
        in_channels: List[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        end_level: int = -1,
        add_extra_convs: Union[bool, str] = False,
        relu_before_extra_convs: bool = False,
        no_norm_on_lateral: bool = False,
        conv_cfg: OptConfigType = None,
        norm_cfg: OptConfigType = None,
        act_cfg: OptConfigType = None,
        upsample_cfg: ConfigType = dict(mode='nearest'),
        bottom_up_norm_cfg: Union[ConfigType, str, None] = 'same',
        bottom_up_act_cfg: OptConfigType = dict(type='ReLU'),
        bottom_up_bias: Union[bool, str] = 'auto',
        fusion: str = 'sum',
        warm_start: bool = False,
        init_cfg: MultiConfig = dict(type='Xavier', layer='Conv2d', distribution='uniform'),
    ) -> None:
        _check_levels(in_channels, out_channels, num_outs, start_level, end_level, add_extra_convs)
        check_norm_cfg('norm_cfg', norm_cfg, out_channels)
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            num_outs=num_outs,
            start_level=start_level,
            end_level=end_level,
            add_extra_convs=add_extra_convs,
            relu_before_extra_convs=relu_before_extra_convs,
            no_norm_on_lateral=no_norm_on_lateral,
            conv_cfg=conv_cfg,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            upsample_cfg=upsample_cfg,
            init_cfg=init_cfg,
        )
        if fusion not in NECK_FUSIONS:
            raise ValueError(f'fusion={fusion!r} must be one of {NECK_FUSIONS}')
        if bottom_up_bias not in ('auto', True, False):
            raise ValueError(f"bottom_up_bias={bottom_up_bias!r} must be 'auto', True or False")
        if bottom_up_norm_cfg == 'same':
            bottom_up_norm_cfg = norm_cfg
        else:
            check_norm_cfg('bottom_up_norm_cfg', bottom_up_norm_cfg, out_channels, "None or 'same'")
        self.fusion = fusion
        self.warm_start = warm_start

        bottom_up_cfg = dict(
            conv_cfg=None if warm_start else conv_cfg,
            norm_cfg=bottom_up_norm_cfg,
            act_cfg=bottom_up_act_cfg,
            bias=bottom_up_bias,
        )
        self.downsample_convs = nn.ModuleList()
        self.fusions = nn.ModuleList()
        self.bottom_up_convs = nn.ModuleList()
        for _ in range(len(self.lateral_convs) - 1):
            self.downsample_convs.append(
                ConvModule(out_channels, out_channels, 3, stride=2, padding=1, inplace=False, **bottom_up_cfg)
            )
            self.fusions.append(self._build_fusion(fusion, out_channels, bottom_up_cfg))
            self.bottom_up_convs.append(
                ConvModule(out_channels, out_channels, 3, padding=1, inplace=False, **bottom_up_cfg)
            )

    @staticmethod
    def _build_fusion(fusion: str, channels: int, conv_cfg: dict) -> BaseModule:
        if fusion == 'sum':
            return SumFusion()
        if fusion == 'concat':
            return ConcatFusion(channels, **conv_cfg)
        return WeightedFusion()

    def init_weights(self) -> None:
        """Initialize the weights, see ``init_cfg`` and ``warm_start``."""
        is_first_call = not self.is_init
        super().init_weights()
        if not (self.warm_start and is_first_call):
            return
        for downsample, fusion, conv in zip(self.downsample_convs, self.fusions, self.bottom_up_convs):
            constant_init(downsample.conv, 0)
            # Both weights of a new weighted fusion are 1/2: undo that here.
            _identity_init(conv.conv, 2.0 if self.fusion == 'weighted' else 1.0)
            if self.fusion == 'concat':
                # The identity on both halves, i.e. their sum: with a zero on
                # the new half neither conv would ever get a gradient.
                weight = fusion.reduce.conv.weight
                _identity_init(fusion.reduce.conv)
                half = weight.size(0)
                weight.data[:, half:] = weight.data[:, :half]

    def forward(self, inputs: Tuple[Tensor]) -> Tuple[Tensor]:
        """Top-down path, bottom-up path, extra levels.

        Args:
            inputs (tuple[Tensor]): The backbone's maps, each
                (B, in_channels[i], H_i, W_i), fine to coarse.

        Returns:
            tuple[Tensor]: N2, N3, ...: ``num_outs`` maps (B, C, H, W), fine
            to coarse.
        """
        if len(inputs) != self.num_ins:
            raise ValueError(
                f'in_channels={self.in_channels} names {self.num_ins} levels, '
                f'but the backbone gave {len(inputs)}: see its out_indices'
            )
        for i in range(self.start_level, self.backbone_end_level):
            if inputs[i].size(1) != self.in_channels[i]:
                raise ValueError(
                    f'in_channels={self.in_channels}, but map {i} of the backbone has {inputs[i].size(1)} channels'
                )
        laterals = self._top_down([conv(inputs[self.start_level + i]) for i, conv in enumerate(self.lateral_convs)])
        pyramid = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals)]
        outs = self._bottom_up(pyramid)
        source = dict(on_input=inputs[self.backbone_end_level - 1], on_lateral=laterals[-1], on_output=outs[-1]).get(
            self.add_extra_convs
        )
        return tuple(outs + self._extra_levels(outs[-1], source))

    def _top_down(self, laterals: List[Tensor]) -> List[Tensor]:
        """FPN's way down: add each level, enlarged, to the finer one."""
        fixed_scale = 'scale_factor' in self.upsample_cfg
        laterals = list(laterals)
        for i in range(len(laterals) - 1, 0, -1):
            size = {} if fixed_scale else {'size': laterals[i - 1].shape[2:]}
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], **size, **self.upsample_cfg)
        return laterals

    def _bottom_up(self, pyramid: List[Tensor]) -> List[Tensor]:
        """The new path: P2, P3, ... to N2, N3, ..."""
        outs = pyramid[:1]
        for level, downsample, fuse, conv in zip(
            pyramid[1:], self.downsample_convs, self.fusions, self.bottom_up_convs
        ):
            finer = downsample(outs[-1])
            if finer.shape[2:] != level.shape[2:]:
                finer = F.interpolate(finer, size=level.shape[2:], mode='nearest')
            outs.append(conv(fuse(level, finer)))
        return outs

    def _extra_levels(self, last: Tensor, source: Optional[Tensor]) -> List[Tensor]:
        """Levels above N5: subsampled ``last``, or convs on ``source``."""
        num_paths = len(self.lateral_convs)
        extra: List[Tensor] = []
        for i in range(num_paths, self.num_outs):
            if source is None:
                last = F.max_pool2d(last, 1, stride=2)
            else:
                if extra and self.relu_before_extra_convs:
                    source = F.relu(source)
                last = source = self.fpn_convs[i](source)
            extra.append(last)
        return extra


def _check_levels(
    in_channels: List[int],
    out_channels: int,
    num_outs: int,
    start_level: int,
    end_level: int,
    add_extra_convs: Union[bool, str],
) -> None:
    """Name the argument that FPN would refuse with a bare assertion."""
    if (
        not isinstance(in_channels, list)
        or not in_channels
        or not all(isinstance(c, int) and c > 0 for c in in_channels)
    ):
        raise ValueError(f'in_channels={in_channels!r} must be a list of numbers above 0, one a level of the backbone')
    check_count('out_channels', out_channels)
    check_count('num_outs', num_outs)
    num_ins = len(in_channels)
    if start_level not in range(num_ins):
        raise ValueError(f'start_level={start_level!r} must be 0 to {num_ins - 1}: in_channels names {num_ins} levels')
    if end_level != -1 and end_level not in range(start_level, num_ins):
        raise ValueError(
            f'end_level={end_level!r} must be -1 (the last level) or '
            f'{start_level} (start_level) to {num_ins - 1}: in_channels '
            f'names {num_ins} levels'
        )
    if add_extra_convs not in EXTRA_CONVS or isinstance(add_extra_convs, int) and not isinstance(add_extra_convs, bool):
        raise ValueError(f'add_extra_convs={add_extra_convs!r} must be one of {EXTRA_CONVS}')
    if end_level in (-1, num_ins - 1):
        if num_outs < num_ins - start_level:
            raise ValueError(
                f'num_outs={num_outs} must be at least {num_ins - start_level}'
                f': in_channels names {num_ins} levels and start_level='
                f'{start_level}; end_level leaves out the last ones'
            )
    elif num_outs != end_level - start_level + 1:
        raise ValueError(
            f'num_outs={num_outs} must be {end_level - start_level + 1} with '
            f'start_level={start_level} and end_level={end_level}: there are '
            'extra levels only above the last level of the backbone'
        )


def _identity_init(conv: nn.Module, gain: float = 1.0) -> None:
    """Make a conv return ``gain`` times its first ``out_channels`` maps."""
    constant_init(conv, 0)
    nn.init.dirac_(conv.weight)
    conv.weight.data.mul_(gain)
