# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""An image as a config's pipeline loads it, as one that can be drawn on."""

import numpy as np


def displayable(image: np.ndarray) -> np.ndarray:
    """Turn an image of any type and number of channels into one that can be drawn on.

    Args:
        image: (H, W), or (H, W, C) with the first three channels in the order BGR, as mmcv loads images. Values that
            are not uint8 are scaled from their own range to 0..255.

    Returns:
        (H, W, 3), RGB, uint8.
    """
    if image.ndim == 2:
        image = image[..., None]
    image = image[..., :1].repeat(3, axis=-1) if image.shape[-1] < 3 else image[..., 2::-1]
    if image.dtype != np.uint8:
        image = image.astype(np.float32)
        low, high = image.min(initial=np.inf), image.max(initial=-np.inf)
        image = ((image - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    return np.ascontiguousarray(image)
