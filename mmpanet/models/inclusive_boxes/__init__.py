# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""Boxes that name their last pixel, as the authors' models were trained with.

In ``lib/utils/boxes.py`` of Detectron.pytorch, the code base of the official code, x2 and y2 are the *last pixel* of a
box, which is therefore x2 - x1 + 1 pixels wide. In mmdet x2 and y2 are where the box *ends*, and it is x2 - x1 wide.
Anchors, box coder, IoU, NMS and RoIAlign of the official configs work on such inclusive boxes. The modules of this
package stand where boxes enter the model, are coded or compared, and leave it.

The registries also know each class by its former name with ``Detectron`` in it (``DetectronBBoxCoder`` and so on).
"""

from .anchor_generator import InclusiveAnchorGenerator
from .bbox_coder import InclusiveBBoxCoder
from .bbox_overlaps import InclusiveBBoxOverlaps2D
from .roi_head import InclusiveBoxRoIHead, end_after_last_pixel
from .transform import ToInclusiveBoxes

__all__ = [
    'InclusiveAnchorGenerator',
    'InclusiveBBoxCoder',
    'InclusiveBBoxOverlaps2D',
    'InclusiveBoxRoIHead',
    'ToInclusiveBoxes',
    'end_after_last_pixel',
]
