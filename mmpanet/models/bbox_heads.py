# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Tuple

import torch.nn as nn
from mmcv.cnn import ConvModule
from torch import Tensor

from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType, OptMultiConfig
from .layers import FCModule, LevelwiseFusion
from .layers.argument_checks import check_count, check_counts, check_norm_cfg, check_size


class PANetBBoxHead(ConvFCBBoxHead):
    """Box head whose first layer exists once a level, fused after it.

    PANet, Section 3.2; ``roi_2mlp_head`` and ``roi_Xconv1fc_gn_head`` with
    ``panet`` in the official ``lib/modeling/fast_rcnn_heads.py``. It takes
    the features of :class:`AdaptiveFeaturePooling`. The first layer (conv or
    fc), its norm and its ReLU come before the fusion.

    Args:
        num_levels (int): L, the levels of the pooling. With 1 it is mmdet's
            head, with a norm on the fcs too, and takes the features of
            mmdet's extractors: Table 3 before adaptive feature pooling.
            Defaults to 4.
        level_fusion (str): 'max' or 'sum' over the levels (Table 4).
            Defaults to 'max'.
        share_first_layer (bool): One first layer for all levels. The paper
            and the official code have one a level. Defaults to False.
        fuse_before_first_layer (bool): Fuse the pooled grids and keep a
            plain head (the row "fused before fc1" of Table 4).
            Defaults to False.
        norm_cfg (dict, optional): Norm of the shared convs.
        fc_norm_cfg (dict, optional): Norm of the shared fcs; mmdet's heads
            have none. Defaults to None.
        **kwargs: The arguments of mmdet's ``ConvFCBBoxHead``.
    """

    def __init__(
        self,
        num_shared_convs: int,
        num_shared_fcs: int,
        num_levels: int = 4,
        level_fusion: str = 'max',
        share_first_layer: bool = False,
        fuse_before_first_layer: bool = False,
        fc_norm_cfg: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
        **kwargs,
    ) -> None:
        check_count('num_levels', num_levels)
        check_counts(kwargs, 'in_channels', 'num_classes', 'conv_out_channels', 'fc_out_channels')
        check_size('roi_feat_size', kwargs.get('roi_feat_size', 7))
        check_norm_cfg('norm_cfg', kwargs.get('norm_cfg'), kwargs.get('conv_out_channels', 256))
        check_norm_cfg(
            # the only norm that a head without convs has
            'fc_norm_cfg' if num_shared_convs else 'norm_cfg',
            fc_norm_cfg,
            kwargs['fc_out_channels'],
        )
        super().__init__(num_shared_convs=num_shared_convs, num_shared_fcs=num_shared_fcs, init_cfg=init_cfg, **kwargs)
        if self.with_avg_pool:
            raise ValueError(
                f'with_avg_pool=True: {type(self).__name__} needs the grid '
                'of every RoI and takes only with_avg_pool=False'
            )
        self.num_levels = num_levels
        self.fc_norm_cfg = fc_norm_cfg

        def once_a_level(build_layer):
            return LevelwiseFusion(build_layer, num_levels, level_fusion, share_first_layer, fuse_before_first_layer)

        # mmdet's layers, with the first one made level-wise and norms on the
        # fcs. The places in the lists stay, so that FPN checkpoints fit.
        if num_shared_convs > 0:
            self.shared_convs[0] = once_a_level(
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

            def build_fc(in_features=in_features):
                return FCModule(in_features, self.fc_out_channels, fc_norm_cfg)

            is_first = i == 0 and num_shared_convs == 0
            self.shared_fcs.append(once_a_level(build_fc) if is_first else build_fc())
            in_features = self.fc_out_channels

        if init_cfg is None:
            # mmdet's last entry is xavier for all of shared_fcs, which does
            # not fit a norm: the same by layer, before those for the outputs.
            self.init_cfg = [
                dict(type='Xavier', distribution='uniform', layer='Linear'),
                *self.init_cfg[:-1],  # type: ignore[has-type]
            ]

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """Classify and refine RoIs.

        Args:
            x (Tensor): Features of ``AdaptiveFeaturePooling``,
                (N, L, C, h, w).

        Returns:
            tuple[Tensor, Tensor]: Scores (N, num_classes + 1), background
            last, and box deltas (N, 4 * num_classes), or (N, 4) with
            ``reg_class_agnostic``.
        """
        for layer in (*self.shared_convs, *self.shared_fcs):
            x = layer(x)
        cls_score = self.fc_cls(x) if self.with_cls else None
        bbox_pred = self.fc_reg(x) if self.with_reg else None
        return cls_score, bbox_pred

    def loss(self, cls_score: Tensor, *args, **kwargs) -> dict:
        """As in mmdet; without any RoI the classifier keeps a (zero) loss.

        mmdet leaves ``loss_cls`` out in that case, and then the classifier
        has no gradient on this rank, which hangs distributed training.
        """
        losses = super().loss(cls_score, *args, **kwargs)
        if cls_score is not None and cls_score.numel() == 0:
            losses['loss_cls'] = cls_score.sum()
        return losses


@MODELS.register_module()
class PANetShared2FCBBoxHead(PANetBBoxHead):
    """PANet's box head with two fcs, the first one once a level.

    Args:
        fc_out_channels (int): Features of both fcs. Defaults to 1024.
        norm_cfg (dict, optional): Norm of both fcs: this head has no convs.
            GN with 32 groups in the official code. Defaults to None.
        **kwargs: Those of :class:`PANetBBoxHead`, e.g. ``level_fusion``, and
            of mmdet's ``Shared2FCBBoxHead``.
    """

    def __init__(self, fc_out_channels: int = 1024, norm_cfg: OptConfigType = None, **kwargs) -> None:
        super().__init__(
            num_shared_convs=0, num_shared_fcs=2, fc_out_channels=fc_out_channels, fc_norm_cfg=norm_cfg, **kwargs
        )


@MODELS.register_module()
class PANetShared4Conv1FCBBoxHead(PANetBBoxHead):
    """PANet's heavier head: four 3x3 convs, the first once a level, and a fc.

    Section 3.2 and the row "HHD" of Table 3. The fc after the convs follows
    the official code, which has a norm on the convs alone.

    Args:
        fc_out_channels (int): Features of the fc. Defaults to 1024.
        norm_cfg (dict, optional): Norm of the four convs. Defaults to None.
        fc_norm_cfg (dict, optional): Norm of the fc. The paper's
            synchronised BN stands after every layer, the fc too; the
            official code has none there. Defaults to None.
        **kwargs: Those of :class:`PANetBBoxHead`, e.g. ``level_fusion``, and
            of mmdet's ``Shared4Conv1FCBBoxHead``.
    """

    def __init__(self, fc_out_channels: int = 1024, **kwargs) -> None:
        super().__init__(num_shared_convs=4, num_shared_fcs=1, fc_out_channels=fc_out_channels, **kwargs)
