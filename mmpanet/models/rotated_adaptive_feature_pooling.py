# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from typing import Any, List, Optional, Tuple

from mmcv.ops import RoIAlignRotated
from mmengine.utils import to_2tuple
from torch import Tensor

from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from mmpanet.ops import multi_level_roi_align_rotated
from mmpanet.utils.errors import ConfigError
from .adaptive_feature_pooling import AdaptiveFeaturePooling

# Former names of arguments, which mmcv's RoIAlign and RoIAlignRotated still take. MMRotate's configs use them.
FORMER_NAMES = dict(out_size='output_size', sample_num='sampling_ratio')


@MODELS.register_module()
class RotatedAdaptiveFeaturePooling(AdaptiveFeaturePooling):
    """Adaptive feature pooling of rotated RoIs: each RoI is pooled from all levels by ``RoIAlignRotated``.

    It is for the detectors of MMRotate, in place of its ``RotatedSingleRoIExtractor``, and needs mmcv only. Its config
    in such a model has ``type='mmdet.RotatedAdaptiveFeaturePooling'``. Neither the paper nor the official code has
    rotated RoIs.

    Args:
        roi_layer (dict): Config of the pooling layer, for example
            ``dict(type='RoIAlignRotated', out_size=7, sample_num=2, clockwise=True)``, as in MMRotate. The newer names
            ``output_size`` and ``sampling_ratio`` mean the same.
        out_channels (int): C, the number of channels of every level.
        featmap_strides (list[int]): The strides of the L levels, in pixels of the input image.
        **kwargs: ``backend``, ``own_level_first``, ``finest_scale`` and ``init_cfg`` of
            :class:`AdaptiveFeaturePooling`. 'embedding_bag' calls :func:`mmpanet.ops.multi_level_roi_align_rotated`,
            which needs ``sampling_ratio >= 1``.

    Raises:
        ConfigError: If an argument has a value that is not allowed.

    Examples:
        >>> import torch
        >>> from mmpanet.models import RotatedAdaptiveFeaturePooling
        >>> pooling = RotatedAdaptiveFeaturePooling(
        ...     roi_layer=dict(
        ...         type='RoIAlignRotated', output_size=7, sampling_ratio=2),
        ...     out_channels=256,
        ...     featmap_strides=[4, 8, 16, 32])
        >>> feats = [torch.rand(1, 256, 64 >> i, 64 >> i) for i in range(4)]
        >>> rois = torch.tensor([[0, 50., 40., 80., 20., 0.5]])
        >>> pooling(feats, rois).shape
        torch.Size([1, 4, 256, 7, 7])
    """

    roi_length = 6  # image index, center x and y, width and height, and angle in radians
    roi_layer_type = RoIAlignRotated

    def __init__(self, roi_layer: ConfigType, out_channels: int, featmap_strides: List[int], **kwargs: Any) -> None:
        if isinstance(roi_layer, dict):
            kind = roi_layer.get('type')
            if (kind if isinstance(kind, str) else getattr(kind, '__name__', None)) != 'RoIAlignRotated':
                raise ConfigError(
                    f"roi_layer.type={kind!r} must be 'RoIAlignRotated'; AdaptiveFeaturePooling takes RoIAlign"
                )
            roi_layer = dict(roi_layer.items())
            use_new_names(roi_layer)
        super().__init__(roi_layer, out_channels, featmap_strides, **kwargs)

    def _pool_at_once(self, feats: Tuple[Tensor, ...], rois: Tensor, order: Optional[Tensor]) -> Tensor:
        layer = self.roi_layers[0]
        scales = [1 / stride for stride in self.featmap_strides]
        return multi_level_roi_align_rotated(
            feats, rois, self.output_size, scales, layer.sampling_ratio, layer.aligned, layer.clockwise, order
        )

    def roi_rescale(self, rois: Tensor, scale_factor: float) -> Tensor:
        """Multiply the width and the height of each RoI by a factor, or by two factors (height, width)."""
        height_factor, width_factor = to_2tuple(scale_factor)
        rois = rois.clone()
        rois[:, 3] *= width_factor
        rois[:, 4] *= height_factor
        return rois


def use_new_names(roi_layer: dict) -> None:
    """Rename arguments of a ``roi_layer``, in place, that have their former names."""
    for old, new in FORMER_NAMES.items():
        if old in roi_layer:
            roi_layer[new] = roi_layer.pop(old)
