# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The ``shapes`` dataset: small, generated, and hard enough to compare detectors.

Flat shapes of several classes lie over each other on textured ground, among strokes and patches that are no objects.
Color and texture do not depend on the class, so a detector has to use the outline. Areas span more than two orders of
magnitude. Some classes have a hole. A mask is the visible part of its object. Some images hold no object.

An image depends only on the seed, its split and its number. The same settings give the same pixels and the same bytes
of JSON, with any number of processes, and a longer dataset begins with the shorter one. Random numbers come from
:class:`numpy.random.RandomState`, whose streams NumPy keeps stable, and outlines are filled in fixed-point arithmetic.
"""

from .config import ShapesConfig
from .generation import make_image, make_shapes
from .outlines import SHAPES

__all__ = ['SHAPES', 'ShapesConfig', 'make_image', 'make_shapes']
