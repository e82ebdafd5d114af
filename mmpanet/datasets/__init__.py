# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
from .dsb2018 import convert_dsb2018
from .shapes import ShapesConfig, make_shapes

__all__ = ['ShapesConfig', 'convert_dsb2018', 'make_shapes']
