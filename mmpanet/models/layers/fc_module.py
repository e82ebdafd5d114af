# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.dist import get_world_size
from torch import Tensor

from mmdet.utils import OptConfigType
from mmpanet.ops import linear


class FCModule(nn.Linear):
    """Fully-connected layer, norm, ReLU: what ``ConvModule`` is to a conv.

    It is an ``nn.Linear`` itself, so that its weight and bias keep the names
    that mmdet's heads give them and an FPN checkpoint loads.

    Args:
        in_features (int): Input features, C * h * w for a pooled grid.
        out_features (int): Output features.
        norm_cfg (dict, optional): Norm over the output features. ``BN``
            means ``BN1d`` here. Defaults to None.
    """

    def __init__(self, in_features: int, out_features: int, norm_cfg: OptConfigType = None) -> None:
        super().__init__(in_features, out_features)
        self.norm = None
        if norm_cfg is not None:
            norm_cfg = dict(norm_cfg)
            if norm_cfg['type'] in ('BN', 'BN2d'):
                norm_cfg['type'] = 'BN1d'
            self.norm = build_norm_layer(norm_cfg, out_features)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Flatten, multiply, normalise, rectify.

        Args:
            x (Tensor): Shape (N, C, h, w) or (N, in_features).

        Returns:
            Tensor: Shape (N, out_features).
        """
        x = linear(x, self.weight, self.bias)
        if self.norm is not None:
            x = self._normalise(x, self.norm)
        return F.relu(x)

    @staticmethod
    def _normalise(x: Tensor, norm: nn.Module) -> Tensor:
        synchronised = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
        # The number of RoIs last: torch.export is to keep it open.
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and not synchronised and len(x) == 1:
            # One RoI has no variance: use the running statistics for it.
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        return norm(x)
