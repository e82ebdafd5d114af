# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, Optional, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import Conv2d, ConvModule, ConvTranspose2d
from mmengine.model import normal_init
from torch import Tensor

from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType
from mmpanet.utils.errors import ConfigError
from .layers import FastLinear, LevelwiseFusion, fast_conv_cfg
from .layers.argument_checks import check_count, check_counts, check_norm_cfg, check_size

FC_FUSIONS = ('sum', 'product', 'max', None)
FC_BRANCH_STARTS = (2, 3, 4)


@MODELS.register_module()
class FCFusionMaskHead(FCNMaskHead):
    """Mask head with adaptive feature pooling and fully-connected fusion.

    PANet, Sections 3.2 and 3.3, Figure 4; ``mask_rcnn_fcn_head_v1upXconvs`` with ``panet`` in the official
    ``lib/modeling/mask_rcnn_heads.py``. ::

        conv1 of each level, fused -> conv2 -> conv3 -> conv4 -> deconv -> logits
                                                 |                           +
                                                 conv4_fc -> conv5_fc -> fc, class-agnostic

    The fc sees the whole RoI and predicts one class-agnostic map. This map is fused with the logits of each class.

    Args:
        num_levels (int): L, the number of levels of the pooling. With 1 the head takes the features of mmdet's
            extractors. Defaults to 4.
        level_fusion (str): 'max' or 'sum' over the levels. Defaults to 'max'.
        share_first_layer (bool): Use one conv1 for all levels. Defaults to False.
        fuse_before_first_layer (bool): Fuse the pooled grids, and use a single conv1 after the fusion. Defaults to
            False.
        level_gate (bool): Start as a head that reads the first level alone, see :class:`PANetShared2FCBBoxHead`. An
            extension of ours. Defaults to False.
        fc_branch_start (int): The number of the convolution after which the fully-connected branch starts: 2, 3 or 4
            (Table 5). Defaults to 3.
        fc_fusion (str, optional): 'sum', 'product' or 'max' of the predictions of both branches (Table 5). None leaves
            out fully-connected fusion. Defaults to 'sum'.
        fc_relu (bool): Apply a ReLU to the output of the fc before the fusion, as the official code does; the paper
            does not mention it. Set it to False with 'max' and 'product': with 'max' no logit is below 0, and with
            'product' the logits are 0 wherever the ReLU gives 0. Defaults to True.
        conv_cfg (dict, optional): Config of the convolutions. Defaults to None, see
            :func:`~mmpanet.models.layers.fast_conv_cfg`.
        **kwargs: The other arguments of mmdet's ``FCNMaskHead``. ``norm_cfg`` is also the norm of the convolutions of
            the fully-connected branch. ``roi_feat_size`` must be the output size of the pooling.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
    """

    def __init__(
        self,
        num_levels: int = 4,
        level_fusion: str = 'max',
        share_first_layer: bool = False,
        fuse_before_first_layer: bool = False,
        level_gate: bool = False,
        fc_branch_start: int = 3,
        fc_fusion: Optional[str] = 'sum',
        fc_relu: bool = True,
        conv_cfg: OptConfigType = None,
        **kwargs: Any,
    ) -> None:
        check_count('num_levels', num_levels)
        check_counts(kwargs, 'in_channels', 'num_classes', 'num_convs', 'conv_out_channels')
        check_size('roi_feat_size', kwargs.get('roi_feat_size', 14))
        channels = kwargs.get('conv_out_channels', 256)
        if fc_fusion is not None:  # conv5_fc has half of the channels
            channels = channels // 2
        check_norm_cfg('norm_cfg', kwargs.get('norm_cfg'), channels)
        super().__init__(conv_cfg=fast_conv_cfg(conv_cfg), **kwargs)
        # mmcv's classes of these two layers differ from torch's for torch 1.4 and older only, and torch.compile of
        # torch 2.0 and 2.1 cannot trace them.
        for layer in (self.upsample, self.conv_logits):
            if type(layer) in (Conv2d, ConvTranspose2d):
                layer.__class__ = type(layer).__base__
        if fc_fusion not in FC_FUSIONS:
            raise ConfigError(f'fc_fusion={fc_fusion!r} must be one of {FC_FUSIONS}')
        self.num_levels = num_levels
        self.fc_branch_start = fc_branch_start
        self.fc_fusion = fc_fusion
        self.fc_relu = fc_relu

        self.convs[0] = LevelwiseFusion(
            lambda: self._build_conv(self.in_channels, self.conv_out_channels),
            num_levels,
            level_fusion,
            share_first_layer,
            fuse_before_first_layer,
            self.conv_out_channels if level_gate else None,
        )
        if self.with_fc_fusion:
            if fc_branch_start not in FC_BRANCH_STARTS or fc_branch_start > self.num_convs:
                raise ConfigError(
                    f'fc_branch_start={fc_branch_start!r} must be one of {FC_BRANCH_STARTS} and at most '
                    f'num_convs={self.num_convs}'
                )
            self._build_fc_branch()

    @property
    def with_fc_fusion(self) -> bool:
        """bool: Whether the fully-connected branch exists."""
        return self.fc_fusion is not None

    @property
    def mask_size(self) -> Tuple[int, int]:
        """tuple[int, int]: Height and width of the predicted masks."""
        scale = self.scale_factor if self.upsample is not None else 1
        height, width = self.roi_feat_size
        return height * scale, width * scale

    def _build_conv(self, in_channels: int, out_channels: int) -> ConvModule:
        return ConvModule(
            in_channels,
            out_channels,
            self.conv_kernel_size,
            padding=(self.conv_kernel_size - 1) // 2,
            conv_cfg=self.conv_cfg,
            norm_cfg=self.norm_cfg,
        )

    def _build_fc_branch(self) -> None:
        channels = self.conv_out_channels
        height, width = self.roi_feat_size
        mask_height, mask_width = self.mask_size
        # The second convolution has half of the channels "to reduce computational overhead" (Section 3.3).
        self.conv4_fc = self._build_conv(channels, channels)
        self.conv5_fc = self._build_conv(channels, channels // 2)
        self.mask_fc = FastLinear(channels // 2 * height * width, mask_height * mask_width)

    def init_weights(self) -> None:
        """Initialize the convolutions by MSRA and the fc by N(0, 0.01)."""
        super().init_weights()
        if self.with_fc_fusion:
            normal_init(self.mask_fc, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Predict the mask logits of all classes.

        Args:
            x (Tensor): Features of ``AdaptiveFeaturePooling``, (N, L, C, h, w).

        Returns:
            Tensor: Logits (N, num_classes, 2h, 2w), with the default upsampling.

        Raises:
            ConfigError: If the RoI features do not have the size ``roi_feat_size``.
        """
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i + 1 == self.fc_branch_start:
                branch = x
        if self.upsample is not None:
            x = self.upsample(x)
            if self.upsample_method == 'deconv':
                x = self.relu(x)
        logits = self.conv_logits(x)
        if not self.with_fc_fusion:
            return logits
        return self._fuse(logits, self._fc_branch(branch))

    def _fc_branch(self, x: Tensor) -> Tensor:
        """Predict one class-agnostic map (N, 1, 2h, 2w) from (N, C, h, w)."""
        if x.shape[-2:] != self.roi_feat_size:
            raise ConfigError(
                f'roi_feat_size={self.roi_feat_size} of the mask head does not match its RoI features, which are '
                f"{tuple(x.shape[-2:])}: set it to the roi_layer's output_size"
            )
        x = self.conv5_fc(self.conv4_fc(x))
        x = self.mask_fc(x)
        if self.fc_relu:
            x = F.relu(x)
        return x.view(-1, 1, *self.mask_size)

    def _fuse(self, logits: Tensor, fc_map: Tensor) -> Tensor:
        if self.fc_fusion == 'sum':
            return logits + fc_map
        if self.fc_fusion == 'product':
            return logits * fc_map
        return torch.maximum(logits, fc_map)
