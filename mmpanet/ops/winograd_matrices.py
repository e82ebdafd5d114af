# Copyright (c) mmpanet contributors. Licensed under Apache-2.0.
"""The matrices of Winograd's algorithm for 3x3 convolutions, see :mod:`.winograd`."""

from typing import Tuple

import numpy as np

# The points for tiles of m x m outputs: 2.25, 1.96 and 1.65 products per output in place of 9. Smaller tiles save less,
# and larger ones are rounded more. Of the sets that were tried, these have the smallest error.
POINTS = {4: (0, 1, -1, -2, 0.5), 5: (0, 1, -1, -2, 0.5, 2), 7: (0, -1, -2, -0.6, 1 / 3, 0.75, 4 / 3, 8 / 3)}


def best_tile(height: int, width: int, tiles: Tuple[int, ...]) -> int:
    """m of ``tiles``: the tile with the fewest products for a grid."""

    def num_products(tile: int) -> int:
        return -(-height // tile) * -(-width // tile) * (tile + 2) ** 2

    return min(tiles, key=num_products)


def matrices_of_kernel(tile: int) -> np.ndarray:
    """G (x) G, (n^2, 9)."""
    kernel = matrices_of_tile(tile)[1]
    return np.kron(kernel, kernel)


def matrices_of_axis(length: int, tile: int, halo: int = 0) -> Tuple[np.ndarray, np.ndarray]:
    """B^T (n T, length) and A^T (length, n T) of all T tiles along an axis. Row i T + t is row i of tile t.

    With ``halo=1`` the tiles read one value more on each side: B^T is (n T, length + 2).
    """
    output, _, data = matrices_of_tile(tile)
    size, num_tiles = tile + 2, -(-length // tile)
    # What a tile reads or writes beyond the border is left out.
    inputs = np.zeros((size, num_tiles, num_tiles * tile + 2))
    outputs = np.zeros((num_tiles * tile, size, num_tiles))
    for i in range(num_tiles):
        inputs[:, i, i * tile : i * tile + size] = data
        outputs[i * tile : (i + 1) * tile, :, i] = output
    inputs = inputs[:, :, 1 - halo : length + 1 + halo]
    return inputs.reshape(size * num_tiles, -1), outputs[:length].reshape(length, -1)


def matrices_of_tile(tile: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T (m, n), G (n, 3) and B^T (n, n) of the paper, by the Toom-Cook method with n - 1 points."""
    size = tile + 2
    points = np.array(POINTS[tile], dtype=float)
    output, kernel, data = np.zeros((tile, size)), np.zeros((size, 3)), np.zeros((size, size))
    output[:, :-1] = points ** np.arange(tile)[:, None]
    output[-1, -1] = 1  # the point at infinity
    kernel[-1, -1] = 1
    data[-1] = np.poly(points)[::-1]
    for i, point in enumerate(points):
        others = np.delete(points, i)
        kernel[i] = point ** np.arange(3) / np.prod(point - others)
        data[i, :-1] = np.poly(others)[::-1]
    return output, kernel, data
