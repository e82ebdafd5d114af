# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, Callable, Optional, Tuple

import torch.nn as nn
from mmcv.cnn import ConvModule
from torch import Tensor

from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType, OptMultiConfig
from mmpanet.utils.errors import ConfigError
from .layers import FCModule, LevelwiseFusion, fast_conv_cfg
from .layers.argument_checks import check_count, check_counts, check_norm_cfg, check_size


class PANetBBoxHead(ConvFCBBoxHead):
    """Box head that has one first layer per level and fuses the levels after it.

    PANet, Section 3.2; ``roi_2mlp_head`` and ``roi_Xconv1fc_gn_head`` with ``panet`` in the official
    ``lib/modeling/fast_rcnn_heads.py``. The input is the output of :class:`AdaptiveFeaturePooling`. The first layer is
    a convolution or an fc. Its norm and its ReLU come before the fusion.

    Args:
        num_shared_convs (int): Number of 3x3 convolutions.
        num_shared_fcs (int): Number of fcs after them.
        num_levels (int): L, the number of levels of the pooling. With 1 the head is mmdet's head, except that its fcs
            may have a norm, and it takes the features of mmdet's extractors: Table 3 before adaptive feature pooling.
            Defaults to 4.
        level_fusion (str): 'max' or 'sum' over the levels (Table 4). Defaults to 'max'.
        share_first_layer (bool): Use one first layer for all levels. The paper and the official code have one per
            level. Defaults to False.
        fuse_before_first_layer (bool): Fuse the pooled grids, and use a single first layer after the fusion (the row
            "fused before fc1" of Table 4). Defaults to False.
        level_gate (bool): Start as a head that reads the first level alone, and learn one gate per further level and
            channel, see ``gate_channels`` of :class:`~mmpanet.models.layers.LevelwiseFusion`. With
            ``AdaptiveFeaturePooling(own_level_first=True)`` and the weights of a trained FPN the head then *is* the
            trained head. :class:`PANetRoIHead` checks that the pooling has this order; mmdet's RoI heads do not. It is
            an extension of ours; the paper has no gates. Defaults to False.
        conv_cfg (dict, optional): Config of the convolutions. Defaults to None, see
            :func:`~mmpanet.models.layers.fast_conv_cfg`.
        norm_cfg (dict, optional): Norm of the convolutions. Defaults to None.
        fc_norm_cfg (dict, optional): Norm of the fcs, which have none in mmdet's heads. Defaults to None.
        init_cfg (dict or list[dict], optional): Initialization config. Defaults to None: Xavier (uniform) for the
            shared fcs, N(0, 0.01) for the class scores and N(0, 0.001) for the box deltas.
        **kwargs: The other arguments of mmdet's ``ConvFCBBoxHead``, with its defaults. Classes and boxes share all
            layers, as in the paper: ``num_cls_convs``, ``num_cls_fcs``, ``num_reg_convs`` and ``num_reg_fcs`` are 0.

    Raises:
        ConfigError: If an argument has a value that is not allowed.
    """

    def __init__(
        self,
        num_shared_convs: int,
        num_shared_fcs: int,
        num_levels: int = 4,
        level_fusion: str = 'max',
        share_first_layer: bool = False,
        fuse_before_first_layer: bool = False,
        level_gate: bool = False,
        conv_cfg: OptConfigType = None,
        fc_norm_cfg: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
        **kwargs: Any,
    ) -> None:
        for name in ('num_cls_convs', 'num_cls_fcs', 'num_reg_convs', 'num_reg_fcs'):
            if kwargs.get(name):
                raise ConfigError(f'{name}={kwargs[name]!r} must be 0: classes and boxes share all layers of the head')
        check_count('num_levels', num_levels)
        check_counts(kwargs, 'in_channels', 'num_classes', 'conv_out_channels', 'fc_out_channels')
        check_size('roi_feat_size', kwargs.get('roi_feat_size', 7))
        check_norm_cfg('norm_cfg', kwargs.get('norm_cfg'), kwargs.get('conv_out_channels', 256))
        check_norm_cfg(
            # A head without convolutions has one norm only, and its config calls it norm_cfg.
            'fc_norm_cfg' if num_shared_convs else 'norm_cfg',
            fc_norm_cfg,
            kwargs.get('fc_out_channels', 1024),
        )
        super().__init__(
            num_shared_convs=num_shared_convs,
            num_shared_fcs=num_shared_fcs,
            conv_cfg=fast_conv_cfg(conv_cfg),
            init_cfg=init_cfg,
            **kwargs,
        )
        if self.with_avg_pool:
            raise ConfigError(
                f'with_avg_pool=True: {type(self).__name__} needs the grid of every RoI and takes only '
                'with_avg_pool=False'
            )
        self.num_levels = num_levels
        self.fc_norm_cfg = fc_norm_cfg

        def build_for_levels(build_layer: Callable[[], nn.Module]) -> LevelwiseFusion:
            channels = self.conv_out_channels if num_shared_convs else self.fc_out_channels
            return LevelwiseFusion(
                build_layer,
                num_levels,
                level_fusion,
                share_first_layer,
                fuse_before_first_layer,
                channels if level_gate else None,
            )

        # The layers of mmdet's head are replaced: the first one by one layer per level, and the fcs by fcs with a norm.
        # Their places in the lists stay the same, so that the checkpoint of an FPN model fits.
        if num_shared_convs > 0:
            self.shared_convs[0] = build_for_levels(
                lambda: ConvModule(
                    self.in_channels,
                    self.conv_out_channels,
                    3,
                    padding=1,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                )
            )
        self.shared_fcs = nn.ModuleList()
        in_features = self.roi_feat_area * (self.conv_out_channels if num_shared_convs else self.in_channels)
        for i in range(num_shared_fcs):

            def build_fc(in_features: int = in_features) -> FCModule:
                return FCModule(in_features, self.fc_out_channels, fc_norm_cfg)

            is_first = i == 0 and num_shared_convs == 0
            self.shared_fcs.append(build_for_levels(build_fc) if is_first else build_fc())
            in_features = self.fc_out_channels

        if init_cfg is None:
            # The last entry of mmdet's init_cfg is Xavier for everything in shared_fcs, which does not fit a norm. The
            # entry for all linear layers does the same. It stands before the entries for the two output layers.
            self.init_cfg: OptMultiConfig = [
                dict(type='Xavier', distribution='uniform', layer='Linear'),
                *self.init_cfg[:-1],
            ]

    def forward(self, x: Tensor) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """Classify and refine the RoIs.

        Args:
            x (Tensor): Features of ``AdaptiveFeaturePooling``, (N, L, C, h, w).

        Returns:
            tuple[Tensor, Tensor]: Class scores (N, num_classes + 1), with the background last, and box deltas
            (N, 4 * num_classes), or (N, 4) with ``reg_class_agnostic``. A head without one of the two outputs
            (``with_cls``, ``with_reg``) gives None for it.
        """
        for layer in (*self.shared_convs, *self.shared_fcs):
            x = layer(x)
        cls_score = self.fc_cls(x) if self.with_cls else None
        bbox_pred = self.fc_reg(x) if self.with_reg else None
        return cls_score, bbox_pred

    def loss(self, cls_score: Optional[Tensor], *args: Any, **kwargs: Any) -> dict:
        """Compute the losses as in mmdet, and keep a loss of zero for the classifier if there are no RoIs.

        mmdet leaves out ``loss_cls`` in this case. The classifier then has no gradient in this process, and distributed
        training hangs.
        """
        losses = super().loss(cls_score, *args, **kwargs)
        if cls_score is not None and cls_score.numel() == 0:
            losses['loss_cls'] = cls_score.sum()
        return losses


@MODELS.register_module()
class PANetShared2FCBBoxHead(PANetBBoxHead):
    """PANet's box head with two fcs. The first fc exists once per level.

    Args:
        fc_out_channels (int): Number of output features of both fcs. Defaults to 1024.
        norm_cfg (dict, optional): Norm of both fcs, since this head has no convolutions. The official code uses GN with
            32 groups. Defaults to None.
        **kwargs: The arguments of :class:`PANetBBoxHead`, for example ``level_fusion``, and of mmdet's
            ``Shared2FCBBoxHead``.
    """

    def __init__(self, fc_out_channels: int = 1024, norm_cfg: OptConfigType = None, **kwargs: Any) -> None:
        super().__init__(
            num_shared_convs=0, num_shared_fcs=2, fc_out_channels=fc_out_channels, fc_norm_cfg=norm_cfg, **kwargs
        )


@MODELS.register_module()
class PANetShared4Conv1FCBBoxHead(PANetBBoxHead):
    """PANet's heavier box head with four 3x3 convolutions and an fc. The first convolution exists once per level.

    Section 3.2 and the row "HHD" of Table 3. The fc after the convolutions is that of the official code, in which only
    the convolutions have a norm.

    Args:
        fc_out_channels (int): Number of output features of the fc. Defaults to 1024.
        norm_cfg (dict, optional): Norm of the four convolutions. Defaults to None.
        fc_norm_cfg (dict, optional): Norm of the fc. In the paper, synchronized BN follows every layer, also the fc. In
            the official code the fc has no norm. Defaults to None.
        **kwargs: The arguments of :class:`PANetBBoxHead`, for example ``level_fusion``, and of mmdet's
            ``Shared4Conv1FCBBoxHead``.
    """

    def __init__(self, fc_out_channels: int = 1024, **kwargs: Any) -> None:
        super().__init__(num_shared_convs=4, num_shared_fcs=1, fc_out_channels=fc_out_channels, **kwargs)
