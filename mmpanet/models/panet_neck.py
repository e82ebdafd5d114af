# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import List, Optional, Tuple, Union

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, PretrainedInit, constant_init, initialize
from torch import Tensor

from mmdet.models.necks import FPN
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, MultiConfig, OptConfigType
from mmpanet.utils.errors import ConfigError
from .layers import ConcatFusion, SumFusion, WeightedFusion, fast_conv_cfg
from .layers.argument_checks import check_norm_cfg, check_pyramid_levels

NECK_FUSIONS = ('sum', 'concat', 'weighted')
CHANNELS_HINT = 'tools/misc/backbone_channels.py CONFIG prints the list that fits'


@MODELS.register_module()
class PANetNeck(FPN):
    r"""FPN with bottom-up path augmentation.

    PANet, Section 3.1 and Figure 1(b); ``fpn_..._panet`` in the official ``lib/modeling/FPN.py``. The new path starts
    from FPN's levels P2 to P5:

    .. math::
        N_2 = P_2, \quad
        N_{i+1} = \mathrm{conv}_{3 \times 3}
            (P_{i+1} + \mathrm{conv}_{3 \times 3, s2}(N_i))

    Every convolution of the new path is followed by a ReLU. The stride-2 convolution reads the finished N(i). mmdet's
    ``PAFPN`` differs in this point: it reads the sum before the 3x3 convolution.

    Two cases are not in the paper. Levels above N5 are computed from the N levels by FPN's own rules; the default
    subsamples N5, as in the official code. If the output of the stride-2 convolution does not have the size of P(i+1),
    because two levels of the backbone are not a factor of two apart, it is resized to that size (nearest), as FPN does
    in its top-down path.

    The neck takes all arguments of mmdet's ``FPN`` with the same names and meanings. The lateral and output
    convolutions also keep FPN's names. To replace an FPN, change the ``type``; the checkpoint of the FPN loads.

    Args:
        in_channels (list[int]): Number of channels of each level of the backbone.
        out_channels (int): C, the number of channels of every output level.
        num_outs (int): Number of output levels.
        start_level (int): Index of the first level of the backbone that is used. Defaults to 0.
        end_level (int): Index of the last level of the backbone that is used; -1 means the last one. Defaults to -1.
        add_extra_convs (bool | str): How levels above the last one are made. False subsamples the last N level. The
            others are stride-2 convolutions on the last level of the backbone ('on_input' or True), on its lateral
            ('on_lateral'), or on the last N level ('on_output'). Defaults to False.
        relu_before_extra_convs (bool): Apply a ReLU before the extra convolutions. Defaults to False.
        no_norm_on_lateral (bool): Leave out the norm of the lateral convolutions. Defaults to False.
        conv_cfg (dict, optional): Config of all convolutions. Defaults to None, see
            :func:`~mmpanet.models.layers.fast_conv_cfg`.
        norm_cfg (dict, optional): Norm of FPN's convolutions. It is also the norm of the new path unless
            ``bottom_up_norm_cfg`` is given. Defaults to None.
        act_cfg (dict, optional): Activation of FPN's convolutions, which have none in the paper. Defaults to None.
        upsample_cfg (dict): Config of the upsampling in the top-down path. Defaults to ``dict(mode='nearest')``.
        bottom_up_norm_cfg (dict | str, optional): Norm of the convolutions of the new path; 'same' means ``norm_cfg``.
            Defaults to 'same'.
        bottom_up_act_cfg (dict, optional): Activation after each convolution of the new path. Defaults to the paper's
            ReLU. The official code leaves the ReLU out where it has no norm; ``None`` does the same.
        bottom_up_bias (bool | str): Whether the convolutions of the new path have a bias. 'auto' gives them one if they
            have no norm. The official code has a bias beside its GN, which is True. Defaults to 'auto'.
        fusion (str): How P(i+1) and the output of the stride-2 convolution are fused: 'sum' as in the paper, 'concat'
            followed by a 1x1 convolution, or 'weighted' with learned, non-negative, normalized weights. Defaults to
            'sum'.
        warm_start (bool): Initialize the stride-2 convolutions with zero and the 3x3 convolutions with the identity.
            If the new path also has no norm and no activation, the neck computes the same as the FPN before the first
            training step, with every ``fusion``. The convolutions of the new path are then plain ones, because a
            convolution with weight standardization (``ConvWS``) cannot be zero or the identity. Defaults to False.
        path_gate (bool): Learn one gate g per level and channel of the new path: N(i+1) = P(i+1) + g * (path - P(i+1)),
            where "path" is the N(i+1) of the equation above. The gates are zero at the start. The neck then computes
            the same as the FPN, and its new path keeps the paper's norm and ReLU. With all gates at one the neck is the
            paper's. It is an extension of ours. Defaults to False.
        init_cfg (dict or list[dict]): Initialization config. Defaults to Xavier (uniform), as in mmdet's FPN. The
            official code scales by the number of inputs alone (Caffe2's ``XavierFill``), as ``configs/official`` does.

    Raises:
        ConfigError: If an argument has a value that is not allowed.

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
        path_gate: bool = False,
        init_cfg: MultiConfig = dict(type='Xavier', layer='Conv2d', distribution='uniform'),
    ) -> None:
        check_pyramid_levels(in_channels, out_channels, num_outs, start_level, end_level, add_extra_convs)
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
            conv_cfg=fast_conv_cfg(conv_cfg),
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            upsample_cfg=upsample_cfg,
            init_cfg=init_cfg,
        )
        if fusion not in NECK_FUSIONS:
            raise ConfigError(f'fusion={fusion!r} must be one of {NECK_FUSIONS}')
        if bottom_up_bias not in ('auto', True, False):
            raise ConfigError(f"bottom_up_bias={bottom_up_bias!r} must be 'auto', True or False")
        if bottom_up_norm_cfg == 'same':
            bottom_up_norm_cfg = norm_cfg
        else:
            check_norm_cfg('bottom_up_norm_cfg', bottom_up_norm_cfg, out_channels, "None or 'same'")
        self.upsample_cfg: dict = dict(upsample_cfg)  # torch.compile of torch 2.0 and 2.1 cannot trace a ConfigDict
        if warm_start and path_gate:
            raise ConfigError('warm_start=True and path_gate=True are two ways to start as the FPN: set one of them')
        if path_gate and len(self.lateral_convs) < 2:
            raise ConfigError('path_gate=True needs two levels of the backbone: with one there is no new path')
        self.fusion = fusion
        self.warm_start = warm_start

        bottom_up_cfg = dict(
            conv_cfg=fast_conv_cfg(None if warm_start else conv_cfg),
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

        num_gates = len(self.bottom_up_convs)
        self.path_gates = nn.Parameter(torch.zeros(num_gates, out_channels)) if path_gate else None

    @staticmethod
    def _build_fusion(fusion: str, channels: int, conv_cfg: dict) -> BaseModule:
        if fusion == 'sum':
            return SumFusion()
        if fusion == 'concat':
            return ConcatFusion(channels, **conv_cfg)
        return WeightedFusion()

    def init_weights(self) -> None:
        """Initialize the weights according to ``init_cfg`` and ``warm_start``."""
        is_first_call = not self.is_init
        super().init_weights()
        if not (self.warm_start and is_first_call):
            return
        for downsample, fusion, conv in zip(self.downsample_convs, self.fusions, self.bottom_up_convs):
            constant_init(downsample.conv, 0)
            # Both weights of a new weighted fusion are 1/2. The gain of 2 makes up for it.
            _identity_init(conv.conv, 2.0 if self.fusion == 'weighted' else 1.0)
            if self.fusion == 'concat':
                # The identity on both halves computes their sum. If the new half were zero, neither this convolution
                # nor the stride-2 convolution would ever get a gradient there.
                weight = fusion.reduce.conv.weight
                _identity_init(fusion.reduce.conv)
                half = weight.size(0)
                weight.data[:, half:] = weight.data[:, :half]
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else self.init_cfg or []
        pretrained = [cfg for cfg in cfgs if cfg['type'] in ('Pretrained', PretrainedInit)]
        if pretrained:
            # The file may hold a new path, which the start above has just replaced.
            initialize(self, pretrained)

    def forward(self, inputs: Tuple[Tensor, ...]) -> Tuple[Tensor, ...]:
        """Run the top-down path and the bottom-up path, and add the extra levels.

        Args:
            inputs (tuple[Tensor]): The maps of the backbone, each (B, in_channels[i], H_i, W_i), from fine to coarse.

        Returns:
            tuple[Tensor]: N2, N3, ...: ``num_outs`` maps (B, C, H, W), from fine to coarse.

        Raises:
            ConfigError: If the number of maps or their channels are not those of ``in_channels``.
        """
        self._check_inputs(inputs)
        laterals = self._top_down([conv(inputs[self.start_level + i]) for i, conv in enumerate(self.lateral_convs)])
        pyramid = [conv(lateral) for conv, lateral in zip(self.fpn_convs, laterals)]
        outs = self._bottom_up(pyramid)
        source = None
        if self.add_extra_convs == 'on_input':
            source = inputs[self.backbone_end_level - 1]
        elif self.add_extra_convs == 'on_lateral':
            source = laterals[-1]
        elif self.add_extra_convs == 'on_output':
            source = outs[-1]
        return tuple(outs + self._extra_levels(outs[-1], source))

    def _check_inputs(self, inputs: Tuple[Tensor, ...]) -> None:
        if len(inputs) != self.num_ins:
            raise ConfigError(
                f'in_channels={self.in_channels} names {self.num_ins} levels, but the backbone gave {len(inputs)}: '
                f'see its out_indices, or {CHANNELS_HINT}'
            )
        for i in range(self.start_level, self.backbone_end_level):
            if inputs[i].size(1) != self.in_channels[i]:
                raise ConfigError(
                    f'in_channels={self.in_channels}, but map {i} of the backbone has {inputs[i].size(1)} channels: '
                    f'{CHANNELS_HINT}'
                )

    def _top_down(self, laterals: List[Tensor]) -> List[Tensor]:
        """FPN's top-down path: add each level, upsampled, to the next finer one."""
        fixed_scale = 'scale_factor' in self.upsample_cfg
        laterals = list(laterals)
        for i in range(len(laterals) - 1, 0, -1):
            size = None if fixed_scale else laterals[i - 1].shape[2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size, **self.upsample_cfg)
        return laterals

    def _bottom_up(self, pyramid: List[Tensor]) -> List[Tensor]:
        """PANet's bottom-up path: compute N2, N3, ... from P2, P3, ..."""
        outs = pyramid[:1]
        for level, downsample, fuse, conv in zip(
            pyramid[1:], self.downsample_convs, self.fusions, self.bottom_up_convs
        ):
            finer = downsample(outs[-1])
            if finer.shape[2:] != level.shape[2:]:
                finer = F.interpolate(finer, size=level.shape[2:], mode='nearest')
            out = conv(fuse(level, finer))
            if self.path_gates is not None:
                gate = self.path_gates[len(outs) - 1].to(out.dtype).view(1, -1, 1, 1)
                out = level + gate * (out - level)
            outs.append(out.to(outs[0].dtype))  # autocast on a GPU computes GN in float32
        return outs

    def _extra_levels(self, last: Tensor, source: Optional[Tensor]) -> List[Tensor]:
        """Make the levels above N5: by subsampling ``last``, or by convolutions on ``source``."""
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


def _identity_init(conv: nn.Module, gain: float = 1.0) -> None:
    """Make a convolution return its first ``out_channels`` input maps, multiplied by ``gain``."""
    constant_init(conv, 0)
    nn.init.dirac_(conv.weight)
    conv.weight.data.mul_(gain)
