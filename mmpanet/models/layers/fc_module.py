# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.dist import get_world_size
from torch import Tensor

from mmdet.utils import OptConfigType
from mmpanet.ops import linear
from mmpanet.utils.configs import type_name
from mmpanet.utils.errors import ConfigError


class FastLinear(nn.Linear):
    """``nn.Linear``, but faster on some processors, see :func:`~mmpanet.ops.linear`. It flattens what it takes."""

    def forward(self, x: Tensor) -> Tensor:
        """Flatten (N, C, h, w), or take (N, in_features), and multiply to (N, out_features)."""
        return linear(x, self.weight, self.bias)


class FCModule(nn.Linear):
    """Fully-connected layer, norm and ReLU, as ``ConvModule`` is for a convolution.

    The class derives from ``nn.Linear``. Weight and bias therefore have the names that they have in mmdet's heads, and
    the checkpoint of an FPN model loads.

    Args:
        in_features (int): Number of input features: C * h * w for a pooled grid.
        out_features (int): Number of output features.
        norm_cfg (dict, optional): Norm of the output features. ``BN`` means ``BN1d`` here. Defaults to None.

    Raises:
        ConfigError: If the norm is a BN without running statistics.
    """

    def __init__(self, in_features: int, out_features: int, norm_cfg: OptConfigType = None) -> None:
        super().__init__(in_features, out_features)
        self.norm = None
        if norm_cfg is not None:
            norm_cfg = dict(norm_cfg)
            if type_name(norm_cfg['type']) in ('BN', 'BN2d', 'BatchNorm2d'):
                norm_cfg['type'] = 'BN1d'
            self.norm = build_norm_layer(norm_cfg, out_features)[1]
            is_batch_norm = isinstance(self.norm, nn.modules.batchnorm._BatchNorm)
            if is_batch_norm and not self.norm.track_running_stats:
                raise ConfigError(
                    f'norm_cfg={norm_cfg!r} must have track_running_stats=True: a single RoI is normalized by the '
                    'running statistics'
                )

    def forward(self, x: Tensor) -> Tensor:
        """Flatten, multiply, normalize and rectify.

        Args:
            x (Tensor): (N, C, h, w) or (N, in_features).

        Returns:
            Tensor: (N, out_features).
        """
        x = linear(x, self.weight, self.bias)
        if self.norm is not None:
            x = self._normalize(x, self.norm)
        return F.relu(x)

    @staticmethod
    def _normalize(x: Tensor, norm: nn.Module) -> Tensor:
        synchronized = isinstance(norm, nn.SyncBatchNorm) and get_world_size() > 1
        # The number of RoIs is tested last, so that torch.export can leave it open.
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and not synchronized and len(x) == 1:
            # A single RoI has no variance, so it is normalized by the running statistics.
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        if isinstance(norm, nn.GroupNorm):
            # torch.onnx.export of torch 2.0 and 2.1 fails on a GroupNorm of (N, C). OpenVINO 2026.4 fails on a graph in
            # eight bits that takes [:, :, 0] in place of flatten. The result is the same.
            return norm(x[:, :, None]).flatten(1)
        return norm(x)
