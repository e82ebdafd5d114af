# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""What the plain loops of RoIAlign and of its rotated form share."""

import math

import torch

STRIDES = [4, 8, 16, 32]
SCALES = [1 / stride for stride in STRIDES]


def maps(height=96, width=144, batch=2, channels=8, dtype=torch.float32):
    return [torch.randn(batch, channels, -(-height // stride), -(-width // stride), dtype=dtype) for stride in STRIDES]


def pixels_beside(position, size):
    """The pixels that a sample reads along one axis of a map, with their weights, by mmcv's rules for the border."""
    if position < -1 or position > size:
        return []
    position = max(position, 0.0)
    low = int(math.floor(position))
    if low >= size - 1:
        return [(size - 1, 1.0)]
    return [(low, low + 1 - position), (low + 1, position - low)]
