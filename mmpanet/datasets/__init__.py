# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .converters.conversion import Converted
from .converters.dsb2018 import convert_dsb2018
from .converters.labelme import convert_labelme
from .converters.masks import convert_masks
from .shapes import ShapesConfig, make_shapes

__all__ = ['Converted', 'ShapesConfig', 'convert_dsb2018', 'convert_labelme', 'convert_masks', 'make_shapes']
